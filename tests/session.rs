//! Sessions against a real kernel gateway.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::error::Aftermath;
use sandkernel::execution::{DisplayKind, Execution, StreamName};
use sandkernel::session::{Reply, Session, StreamEvent};
use support::tls_front::TlsFront;
use support::{Gateway, begins_and_sleeps, time_limits, within, write_line};

/// One gateway serves every step: a boot takes a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_and_its_kernel() {
    let gateway = Gateway::start_with(&["--ZMQChannelsWebsocketConnection.limit_rate=False"]).await;
    let session = Session::open(gateway.endpoint(), config()).await.unwrap();
    gives_output_and_results(&session).await;
    gives_errors_as_data(&session).await;
    streams_what_happens(&session).await;
    answers_what_the_code_asks(&session).await;
    refuses_input_unless_allowed(&session).await;
    serves_in_order(&session).await;
    keeps_the_state_when_a_timeout_interrupts(&session).await;
    interrupts_what_is_dropped(&session).await;
    restarts_what_ignores_an_interrupt(&session).await;
    restarts_on_request(&session).await;
    says_that_the_kernel_died(&session).await;
    bounds_what_is_kept(&gateway).await;
    attaches_to_a_kernel_and_leaves_it(&gateway, &session).await;
    speaks_tls(&gateway).await;
    closes(&gateway, session).await;
}

fn config() -> SessionConfig {
    SessionConfig { interrupt_grace: Duration::from_secs(1), ..SessionConfig::default() }
}

async fn run(session: &Session, code: &str) -> Execution {
    session.run(code.to_owned(), within(60)).await.unwrap()
}

fn text(execution: &Execution) -> Option<&str> {
    let main = execution.results.iter().find(|item| item.kind == DisplayKind::ExecuteResult)?;
    Some(main.data.get("text/plain")?.as_str())
}

async fn gives_output_and_results(session: &Session) {
    let execution = run(session, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7").await;
    assert_eq!((execution.stdout().as_ref(), execution.stderr().as_ref()), ("out\n", "err\n"));
    assert_eq!((text(&execution), execution.execution_count), (Some("42"), Some(1)));
    assert!(execution.complete && execution.error.is_none());
}

async fn gives_errors_as_data(session: &Session) {
    let execution = run(session, "print('before')\n1 / 0").await;
    let error = execution.error.as_ref().unwrap();
    assert_eq!((error.name.as_str(), error.value.as_str()), ("ZeroDivisionError", "division by zero"));
    assert!(error.traceback.iter().all(|entry| !entry.contains('\u{1b}')), "{error:?}");
    assert_eq!(execution.stdout(), "before\n");
}

async fn streams_what_happens(session: &Session) {
    let code = format!("import time\n{}\ntime.sleep(0.3)\n{}\n3", write_line("one"), write_line("two"));
    let mut running = session.start(code, RunOptions { observe: true, ..within(60) }).unwrap();
    let Some(StreamEvent::Output { stream: StreamName::Stdout, text: first }) = running.next_event().await
    else {
        panic!("the first event is output")
    };
    // What was written before the pause is there before what was written after it.
    assert_eq!(first, "one\n");
    let mut rest = Vec::new();
    while let Some(event) = running.next_event().await {
        rest.push(event);
    }
    assert!(matches!(&rest[..], [StreamEvent::Output { .. }, StreamEvent::Result(_)]), "{rest:?}");
    assert_eq!(running.finish().await.unwrap().stdout(), "one\ntwo\n");
}

async fn answers_what_the_code_asks(session: &Session) {
    let code = "import getpass\nnames = [input('name? '), getpass.getpass('word? ')]\nnames";
    let options = RunOptions { observe: true, allow_stdin: true, ..within(60) };
    let mut running = session.start(code.to_owned(), options).unwrap();
    let replier = running.replier().unwrap();
    let mut asked = Vec::new();
    while let Some(event) = running.next_event().await {
        if let StreamEvent::InputRequest(request) = event {
            assert!(replier.reply(Reply { value: format!("to {}", request.prompt), buffers: Vec::new() }));
            asked.push((request.prompt, request.password));
        }
    }
    assert_eq!(asked, [("name? ".to_owned(), false), ("word? ".to_owned(), true)]);
    assert_eq!(text(&running.finish().await.unwrap()), Some("['to name? ', 'to word? ']"));
    assert!(!replier.reply(Reply { value: "late".to_owned(), buffers: Vec::new() }));
    // Nothing of it is left for the next one.
    assert_eq!(text(&run(session, "names").await), Some("['to name? ', 'to word? ']"));
}

async fn refuses_input_unless_allowed(session: &Session) {
    let execution = run(session, "input('name? ')").await;
    assert_eq!(execution.error.unwrap().name, "StdinNotImplementedError");
}

async fn serves_in_order(session: &Session) {
    let mut running: Vec<_> = (0..10)
        .map(|number| session.start(format!("order = {number}\norder"), within(60)).unwrap())
        .collect();
    for (number, running) in running.iter_mut().enumerate() {
        assert_eq!(text(&running.finish().await.unwrap()), Some(number.to_string().as_str()));
    }
}

async fn keeps_the_state_when_a_timeout_interrupts(session: &Session) {
    run(session, "kept = 'here'").await;
    let mut stdout = String::new();
    for limit in time_limits() {
        let options = RunOptions { timeout: Some(limit), ..within(60) };
        let error = session.run(begins_and_sleeps(), options).await.unwrap_err();
        let Error::ExecutionTimeout { aftermath: Aftermath::Interrupted, execution: Some(execution), .. } =
            error
        else {
            panic!("{error:?}")
        };
        stdout = execution.stdout().into_owned();
        if !stdout.is_empty() {
            break;
        }
    }
    assert_eq!(stdout, "began\n");
    assert_eq!(text(&run(session, "kept").await), Some("'here'"));
}

async fn interrupts_what_is_dropped(session: &Session) {
    let mut running = session.start(begins_and_sleeps(), RunOptions { observe: true, ..within(60) }).unwrap();
    assert!(running.next_event().await.is_some());
    drop(running);
    // The next one waits for the interrupt to have worked, and is not hit by it.
    assert_eq!(text(&run(session, "kept").await), Some("'here'"));
}

async fn restarts_what_ignores_an_interrupt(session: &Session) {
    let generation = session.generation();
    // What interrupts it before it has begun with the loop, it ignores as well.
    let swallows = "while True:\n        try:\n            time.sleep(600)\n        except KeyboardInterrupt:\n            pass";
    let code = format!("import time\ntry:\n    {}\nfinally:\n    {swallows}", write_line("began"));
    let mut aftermath = None;
    for limit in time_limits() {
        let options = RunOptions { timeout: Some(limit), ..within(60) };
        let error = session.run(code.clone(), options).await.unwrap_err();
        let Error::ExecutionTimeout { aftermath: seen, execution, .. } = error else { panic!("{error:?}") };
        aftermath = Some(seen);
        if execution.is_some_and(|execution| !execution.stdout().is_empty()) {
            break;
        }
    }
    assert_eq!(aftermath, Some(Aftermath::Restarted));
    assert_ne!(session.generation(), generation);
    assert_eq!(text(&run(session, "'kept' in globals()").await), Some("False"));
}

async fn restarts_on_request(session: &Session) {
    let generation = session.generation();
    let mut running = session.start(begins_and_sleeps(), RunOptions { observe: true, ..within(60) }).unwrap();
    assert!(running.next_event().await.is_some());
    session.restart().await.unwrap();
    let error = running.finish().await.unwrap_err();
    let Error::KernelDied { execution: Some(execution), .. } = error else { panic!("{error:?}") };
    assert_eq!((execution.stdout().as_ref(), execution.complete), ("began\n", false));
    assert_eq!(session.generation(), generation + 1);
    assert_eq!(text(&run(session, "1 + 1").await), Some("2"));
    // The reply of the new process does not count as yet another loss.
    assert_eq!(session.generation(), generation + 1);
}

async fn says_that_the_kernel_died(session: &Session) {
    let generation = session.generation();
    // What a process has written is lost with it, unless it has left: it dies once that was heard.
    let go = std::env::temp_dir().join(format!("sandkernel-go-{:016x}", rand::random::<u64>()));
    let code = format!(
        "import os, time\n{}\nwhile not os.path.exists('{}'): time.sleep(0.01)\nos._exit(1)",
        write_line("last words"),
        go.display()
    );
    let mut running = session.start(code, RunOptions { observe: true, ..within(60) }).unwrap();
    assert!(running.next_event().await.is_some());
    std::fs::write(&go, "").unwrap();
    let error = running.finish().await.unwrap_err();
    std::fs::remove_file(&go).unwrap();
    let Error::KernelDied { execution: Some(execution), .. } = error else { panic!("{error:?}") };
    assert_eq!(execution.stdout(), "last words\n");
    assert_eq!(session.generation(), generation + 1);
    assert_eq!(text(&run(session, "2 + 2").await), Some("4"));
}

async fn bounds_what_is_kept(gateway: &Gateway) {
    let mut config = config();
    config.limits.output_bytes = 1000;
    let session = Session::open(gateway.endpoint(), config).await.unwrap();
    let execution = run(&session, "print('head', 'x' * 1_000_000, 'tail')").await;
    let stdout = execution.stdout();
    assert!(stdout.starts_with("head x") && stdout.ends_with("x tail\n"), "{stdout}");
    assert!(stdout.len() < 1100, "{}", stdout.len());
    assert_eq!(execution.omitted.stdout_bytes, 1_000_011 - 1000);
    session.close().await;
}

async fn attaches_to_a_kernel_and_leaves_it(gateway: &Gateway, owner: &Session) {
    run(owner, "shared = 'seen'").await;
    let config = SessionConfig { kernel_id: Some(owner.kernel_id().as_ref().to_owned()), ..config() };
    let guest = Session::open(gateway.endpoint(), config.clone()).await.unwrap();
    assert_eq!(text(&run(&guest, "shared").await), Some("'seen'"));
    guest.close().await;
    assert!(matches!(guest.run("1".to_owned(), within(60)).await, Err(Error::Closed)));
    assert_eq!(text(&run(owner, "shared").await), Some("'seen'"));

    let unknown =
        SessionConfig { kernel_id: Some("00000000-0000-0000-0000-000000000000".to_owned()), ..config };
    let error = Session::open(gateway.endpoint(), unknown).await.unwrap_err();
    assert!(matches!(error, Error::KernelNotFound { .. }), "{error:?}");
}

async fn speaks_tls(gateway: &Gateway) {
    let front = TlsFront::start(&["localhost"], gateway.port).await;
    let endpoint = sandkernel::gateway::Endpoint::new(
        &format!("https://localhost:{}/", front.port),
        Some(&gateway.token),
    )
    .unwrap();
    let config = SessionConfig { extra_ca_pem: Some(front.ca_pem.clone().into_bytes()), ..config() };
    let session = Session::open(endpoint, config).await.unwrap();
    assert_eq!(text(&run(&session, "'over TLS'").await), Some("'over TLS'"));
    session.close().await;
}

async fn closes(gateway: &Gateway, session: Session) {
    let mut running = session.start(begins_and_sleeps(), RunOptions { observe: true, ..within(60) }).unwrap();
    assert!(running.next_event().await.is_some());
    let kernel_id = session.kernel_id();
    tokio::join!(session.close(), session.close());
    assert!(matches!(running.finish().await, Err(Error::Closed)));
    assert!(matches!(gateway.client().get_kernel(&kernel_id).await, Err(Error::KernelNotFound { .. })));
    assert_eq!(gateway.client().list_kernels().await.unwrap(), []);

    // A session whose last handle goes closes by itself.
    let session = Session::open(gateway.endpoint(), config()).await.unwrap();
    drop(session);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gateway.client().list_kernels().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the kernel of a dropped session is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
