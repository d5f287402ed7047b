//! Faults while the websocket opens, or before the kernel is heard: nothing is lost, and nobody waits in vain.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::session::Session;
use support::fault_proxy::{Cut, FaultProxy, Toward};
use support::tuned_gateway::TunedGateway;
use support::{begins_and_sleeps, signal, within};

/// Far above what an answer takes on a machine under load, and far below the 60 s that a connection may take.
const IN_TIME: Duration = Duration::from_secs(20);

/// More than the answer to an upgrade, and the kernel's to the first question.
const OPENING_BYTES: usize = 1200;

fn config(gateway: &TunedGateway, dead_peer_timeout: Duration) -> SessionConfig {
    SessionConfig {
        kernel_id: Some(gateway.kernel_id.clone()),
        dead_peer_timeout,
        reconnect_timeout: Duration::from_secs(20),
        interrupt_grace: Duration::from_secs(1),
        ..SessionConfig::default()
    }
}

async fn open(gateway: &TunedGateway, port: u16, dead_peer_timeout: Duration) -> Session {
    Session::open(gateway.endpoint_at(port), config(gateway, dead_peer_timeout)).await.unwrap()
}

async fn printed(session: &Session, expression: &str) -> String {
    session.run(format!("print({expression}, end='')"), within(60)).await.unwrap().stdout().into_owned()
}

/// After a kernel's death, what is asked next opens a new session.
async fn kill_the_kernel(session: &Session) {
    let error = session.run("import os\nos._exit(1)".to_owned(), within(60)).await.unwrap_err();
    assert!(matches!(error, Error::KernelDied { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_opening_was_cut_survives_the_next_cut() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, proxy.port, Duration::from_secs(15)).await;
    let code = "import time\nfor i in range(20):\n    print(i, flush=True)\n    time.sleep(0.01)";
    let lines: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    for position in (0..OPENING_BYTES).step_by(100) {
        kill_the_kernel(&session).await;
        // The gateway may know of the session when the client does not.
        let cut = if position % 200 == 0 { Cut::Fin } else { Cut::Reset };
        proxy.cut_after(Toward::Client, position, cut);
        let mut running = session.start(code.to_owned(), RunOptions { observe: true, ..within(60) }).unwrap();
        assert!(running.next_event().await.is_some(), "at {position}");
        assert!(proxy.disarm(), "at {position}");
        proxy.cut_now(cut);
        let execution = running.finish().await.unwrap_or_else(|error| panic!("at {position}: {error}"));
        assert_eq!(execution.stdout().lines().collect::<Vec<_>>(), lines, "at {position}");
    }
    session.close().await;
}

/// Has the openings of a session go silent, each at another byte.
async fn go_silent_while_opening(gateway: &TunedGateway, dead_peer_timeout: Duration) -> Result<(), Error> {
    let proxy = FaultProxy::start(gateway.port).await;
    let session = Session::open(gateway.endpoint_at(proxy.port), config(gateway, dead_peer_timeout)).await?;
    for position in [0, 20, 100] {
        match session.run("import os\nos._exit(1)".to_owned(), within(60)).await {
            Err(Error::KernelDied { .. }) => {}
            outcome => return Err(outcome.unwrap_err()),
        }
        proxy.cut_after(Toward::Client, position, Cut::Silence);
        let execution = session.run("print(6 * 7, end='')".to_owned(), within(20)).await?;
        assert_eq!(execution.stdout(), "42", "at {position}");
        assert!(proxy.disarm(), "at {position}");
    }
    session.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_went_silent_is_begun_anew() {
    let gateway = TunedGateway::start();
    let mut errors = Vec::new();
    // On a machine under load, an opening takes longer than the first of them.
    for milliseconds in [400, 2000, 4000] {
        match go_silent_while_opening(&gateway, Duration::from_millis(milliseconds)).await {
            Ok(()) => return,
            Err(error) => errors.push(format!("with {milliseconds} ms: {error:?}")),
        }
    }
    panic!("an opening that went silent was not begun anew: {errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kernel_gets_before_it_is_heard_is_kept() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, proxy.port, Duration::from_secs(15)).await;
    kill_the_kernel(&session).await;
    let other = open(&gateway, gateway.port, Duration::from_secs(15)).await;
    let kernel = printed(&other, "__import__('os').getpid()").await.parse().unwrap();
    other.run("runs = []".to_owned(), within(60)).await.unwrap();
    other.close().await;

    signal("STOP", kernel);
    let mut running = session
        .start(
            "runs.append(1)\nprint(len(runs), flush=True)".to_owned(),
            RunOptions { observe: true, ..within(60) },
        )
        .unwrap();
    // While the kernel is asked whether it is heard, and when it has got the code all the same.
    for pause in [300, 8000, 500] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        proxy.cut_now(Cut::Reset);
    }
    signal("CONT", kernel);
    while running.next_event().await.is_some() {}
    assert_eq!(running.finish().await.unwrap().stdout(), "1\n");
    assert_eq!(printed(&session, "runs").await, "[1]");
    assert_eq!(session.generation(), 1);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_a_kernel_learns_that_it_is_restarted() {
    let gateway = TunedGateway::start();
    let session = open(&gateway, gateway.port, Duration::from_secs(15)).await;
    let other = open(&gateway, gateway.port, Duration::from_secs(15)).await;
    let options = RunOptions { observe: true, ..within(60) };
    let mut running = session.start(begins_and_sleeps(), options).unwrap();
    assert!(running.next_event().await.is_some());
    let asked = Instant::now();
    other.restart().await.unwrap();
    let error = running.finish().await.unwrap_err();
    let Error::KernelDied { execution: Some(execution), .. } = error else { panic!("{error:?}") };
    assert_eq!(execution.stdout(), "began\n");
    assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
    for session in [session, other] {
        assert_eq!(printed(&session, "'time' in globals()").await, "False");
        session.close().await;
    }
}
