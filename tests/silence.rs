//! Gateways and kernels that stand still: every call ends in time, and goes on where it can.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::error::Aftermath;
use sandkernel::session::{Running, Session};
use support::fault_proxy::{Cut, FaultProxy};
use support::tuned_gateway::TunedGateway;
use support::{Gateway, begins_and_sleeps, signal, within};

/// Far above what an answer takes on a machine under load, and far below the 60 s that a connection may take.
const IN_TIME: Duration = Duration::from_secs(20);

async fn open(gateway: &TunedGateway, port: u16, grace: Duration) -> Session {
    let config = SessionConfig {
        kernel_id: Some(gateway.kernel_id.clone()),
        interrupt_grace: grace,
        ..SessionConfig::default()
    };
    Session::open(gateway.endpoint_at(port), config).await.unwrap()
}

async fn printed(session: &Session, expression: &str) -> String {
    session.run(format!("print({expression}, end='')"), within(60)).await.unwrap().stdout().into_owned()
}

/// Code that sleeps, and has begun to.
async fn begin(session: &Session, timeout: Duration) -> Running {
    // Twice that, and so on, where a loaded machine has not begun by then.
    for factor in [1, 2, 4, 8, 16] {
        let options = RunOptions { observe: true, timeout: Some(timeout * factor), ..within(60) };
        let mut running = session.start(begins_and_sleeps(), options).unwrap();
        if running.next_event().await.is_some() {
            return running;
        }
        timed_out(&running.finish().await.unwrap_err());
    }
    panic!("the code did not begin")
}

fn timed_out(error: &Error) -> Aftermath {
    let Error::ExecutionTimeout { aftermath, .. } = error else { panic!("{error:?}") };
    *aftermath
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateway_holds_nobody_up() {
    let gateway = TunedGateway::start();
    let session = open(&gateway, gateway.port, Duration::from_secs(60)).await;
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    let mut running = begin(&session, Duration::from_secs(2)).await;
    gateway.stop();
    let stopped = Instant::now();
    let error = running.finish().await.unwrap_err();
    assert_eq!(timed_out(&error), Aftermath::Unknown);
    assert!(error.to_string().contains("has not answered the interrupt"), "{error}");
    let Error::ExecutionTimeout { execution: Some(execution), .. } = &error else { panic!("{error:?}") };
    assert_eq!(execution.stdout(), "began\n");
    assert!(stopped.elapsed() < IN_TIME, "{:?}", stopped.elapsed());

    // What comes next has its own timeout.
    let options = RunOptions { timeout: Some(Duration::from_millis(300)), ..within(60) };
    let asked = Instant::now();
    let error = session.run("kept = 8".to_owned(), options.clone()).await.unwrap_err();
    assert_eq!(timed_out(&error), Aftermath::NotRun);
    assert!(error.to_string().contains("so it was not run"), "{error}");
    assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());

    // It goes on where it was: the interrupt arrives, and no state is lost.
    gateway.continue_();
    assert_eq!(printed(&session, "kept").await, "7");
    assert_eq!(session.generation(), 0);

    // Nothing is waited for without a bound on a gateway that says nothing at all.
    gateway.stop();
    let asked = Instant::now();
    let (interrupt, restart) = tokio::join!(session.interrupt(), session.restart());
    for error in [interrupt.unwrap_err(), restart.unwrap_err()] {
        assert!(
            matches!(&error, Error::Gateway { reason, .. } if reason.contains("no answer within")),
            "{error:?}"
        );
    }
    let error = session.run("1".to_owned(), options).await.unwrap_err();
    assert_eq!(timed_out(&error), Aftermath::NotRun);
    assert!(asked.elapsed() < IN_TIME + IN_TIME, "{:?}", asked.elapsed());
    gateway.continue_();
    assert_eq!(printed(&session, "1 + 1").await, "2");
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_is_sent_until_the_code_has_begun() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, proxy.port, Duration::from_secs(60)).await;
    session.run("import os, time\nkept = 7".to_owned(), within(60)).await.unwrap();
    let kernel = printed(&session, "os.getpid()").await.parse().unwrap();
    // A kernel that is idle overhears interrupts. Stopped, it has not begun with the code.
    signal("STOP", kernel);
    let options = RunOptions { timeout: Some(Duration::from_millis(100)), ..within(60) };
    let mut running = session.start("time.sleep(600)".to_owned(), options).unwrap();
    proxy.take_passed();
    while proxy.take_passed() == 0 {
        // The answer to the interrupt: a stopped kernel says nothing.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal("CONT", kernel);
    assert_eq!(timed_out(&running.finish().await.unwrap_err()), Aftermath::Interrupted);
    assert_eq!(printed(&session, "kept").await, "7");

    // At whatever moment the time is over, that code is hit, and what comes next is not.
    for index in 0..25 {
        let options = RunOptions { timeout: Some(Duration::from_millis(index)), ..within(60) };
        let error = session.run("time.sleep(600)".to_owned(), options).await.unwrap_err();
        assert!(matches!(timed_out(&error), Aftermath::Interrupted | Aftermath::NotRun), "{error:?}");
        let next =
            session.run("for _ in range(20): time.sleep(0.001)\nprint(kept)".to_owned(), within(60)).await;
        assert_eq!(next.unwrap().stdout(), "7\n", "{index}");
    }
    assert_eq!(session.generation(), 0);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_kernel_is_restarted() {
    let gateway = TunedGateway::start();
    let session = open(&gateway, gateway.port, Duration::from_millis(300)).await;
    let kernel = printed(&session, "__import__('os').getpid()").await.parse().unwrap();
    let mut running = begin(&session, Duration::from_millis(500)).await;
    signal("STOP", kernel);
    let error = running.finish().await.unwrap_err();
    assert_eq!(timed_out(&error), Aftermath::Restarted);
    assert_eq!(session.generation(), 1);
    assert_eq!(printed(&session, "1 + 1").await, "2");

    // Code of before that does not react is ended before what comes next, which is told.
    let stubborn = "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except KeyboardInterrupt:\n        print('no', flush=True)";
    let mut running = session
        .start(format!("print('began', flush=True)\n{stubborn}"), RunOptions { observe: true, ..within(60) })
        .unwrap();
    assert!(running.next_event().await.is_some());
    drop(running);
    let options = RunOptions { generation: Some(1), ..within(60) };
    let error = session.run("1".to_owned(), options).await.unwrap_err();
    assert!(matches!(&error, Error::StateLost), "{error:?}");
    assert_eq!(session.generation(), 2);
    assert_eq!(printed(&session, "1 + 1").await, "2");
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_silent_is_not_used_again() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let client = sandkernel::gateway::GatewayClient::new(gateway.endpoint_at(proxy.port), None).unwrap();
    client.get_kernel(&gateway.kernel_id).await.unwrap();
    proxy.cut_now(Cut::Silence);
    let asked = Instant::now();
    client.interrupt_kernel(&gateway.kernel_id).await.unwrap();
    assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
    proxy.cut_now(Cut::Silence);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.restart_kernel(&gateway.kernel_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_slept_comes_back_to_its_kernel() {
    let gateway = TunedGateway::start_with(1);
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, proxy.port, Duration::from_secs(5)).await;
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    let code = "import time\nfor i in range(100):\n    print(i, flush=True)\n    time.sleep(0.01)\nkept";
    let mut running = session.start(code.to_owned(), RunOptions { observe: true, ..within(60) }).unwrap();
    assert!(running.next_event().await.is_some());
    proxy.cut_now(Cut::Silence);
    while proxy.given_up() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The gateway has given the client up. Now it wakes, and finds its connection gone.
    proxy.cut_now(Cut::Fin);
    let execution = running.finish().await.unwrap();
    let lines: Vec<_> = execution.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(printed(&session, "kept").await, "7");
    assert_eq!(session.generation(), 0);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_for_us_ends_one_execution() {
    let gateway = Gateway::start_with(&["--ZMQChannelsWebsocketConnection.limit_rate=False"]).await;
    let mut config = SessionConfig::default();
    (config.limits.output_bytes, config.limits.result_bytes) = (1000, 1000);
    let session = Session::open(gateway.endpoint(), config).await.unwrap();
    let code = "kept = 7\nprint('before', flush=True)\nprint('x' * 20_000_000, flush=True)";
    let error = session.run(code.to_owned(), within(60)).await.unwrap_err();
    let Error::ConnectionLost { reason, execution: Some(execution) } = error else { panic!("{error:?}") };
    assert!(reason.contains("a message of 20000") && reason.contains("raise max_result_bytes"), "{reason}");
    assert_eq!(execution.stdout(), "before\n");
    assert_eq!(printed(&session, "kept").await, "7");
    assert_eq!(session.generation(), 0);
    session.close().await;
}
