//! Kernels that do not say how code ended, or that are not there any more: every execution ends, and the next one runs.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::error::Aftermath;
use sandkernel::gateway::{Endpoint, GatewayClient};
use sandkernel::session::{Running, Session};
use support::fault_proxy::FaultProxy;
use support::tuned_gateway::TunedGateway;
use support::{Gateway, within};

/// Far above what is stated, on a machine under load, and far below the timeouts of the executions.
const IN_TIME: Duration = Duration::from_secs(30);

/// Ends without a reply, since a file is written to that is closed.
const CLOSED_OUTPUT: &str = "import sys\nwith open('/dev/null', 'w') as sys.stdout:\n    print('x')";

async fn open(endpoint: Endpoint, kernel_id: Option<&str>) -> Session {
    let config = SessionConfig { kernel_id: kernel_id.map(str::to_owned), ..SessionConfig::default() };
    Session::open(endpoint, config).await.unwrap()
}

async fn printed(session: &Session, expression: &str) -> String {
    let execution = session.run(format!("print({expression}, end='')"), within(100)).await.unwrap();
    assert!(execution.error.is_none(), "{:?}", execution.error);
    execution.stdout().into_owned()
}

/// Code that waits, and has begun to.
async fn begin(session: &Session, code: &str) -> Running {
    let options = RunOptions { observe: true, ..within(100) };
    let mut running = session.start(format!("print('began', flush=True)\n{code}"), options).unwrap();
    assert!(running.next_event().await.is_some());
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_in_the_kernels_own_handling_ends_the_execution() {
    let gateway = Gateway::start().await;
    let session = open(gateway.endpoint(), None).await;
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    for code in [
        format!("print('before')\n{}", vec!["kept"; 3000].join(" + ")),
        "get_ipython().payload_manager.write_payload({'source': 's', 'data': object()})".to_owned(),
    ] {
        let asked = Instant::now();
        let execution = session.run(code.clone(), within(100)).await.unwrap();
        assert!(asked.elapsed() < IN_TIME, "{code}: {:?}", asked.elapsed());
        assert!(execution.error.is_some() && execution.status.is_none() && !execution.complete, "{code}");
        assert_eq!(printed(&session, "kept").await, "7", "{code}");
    }
    assert_eq!(session.generation(), 0);

    // Without its output, the kernel does not run the next one either: it is restarted.
    let asked = Instant::now();
    let execution = session.run(CLOSED_OUTPUT.to_owned(), within(100)).await.unwrap();
    assert_eq!(execution.error.unwrap().name, "ExecutionUnanswered");
    let stale = RunOptions { generation: Some(0), ..within(100) };
    assert!(matches!(session.run("1".to_owned(), stale).await, Err(Error::StateLost)));
    assert_eq!(printed(&session, "'kept' in globals()").await, "False");
    assert_eq!(session.generation(), 1);
    assert!(asked.elapsed() < IN_TIME + IN_TIME, "{:?}", asked.elapsed());
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_kernel_that_does_not_run_code_is_named() {
    let gateway = Gateway::start().await;
    let kernel = gateway.client().create_kernel(None).await.unwrap();
    let session = open(gateway.endpoint(), Some(&kernel.id)).await;
    // A timeout ends it first: the kernel answers the interrupt, and not the code.
    let options = RunOptions { timeout: Some(Duration::from_secs(1)), ..within(1) };
    let error = session.run(CLOSED_OUTPUT.to_owned(), options.clone()).await.unwrap_err();
    assert!(matches!(error, Error::ExecutionTimeout { aftermath: Aftermath::Interrupted, .. }), "{error:?}");
    // What comes meanwhile has its own timeout.
    let error = session.run("1".to_owned(), options).await.unwrap_err();
    assert!(matches!(error, Error::ExecutionTimeout { aftermath: Aftermath::NotRun, .. }), "{error:?}");
    for _ in 0..2 {
        let asked = Instant::now();
        let error = session.run("1".to_owned(), within(100)).await.unwrap_err();
        assert!(matches!(&error, Error::KernelUnresponsive { .. }), "{error:?}");
        assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
    }
    assert_eq!(session.generation(), 0);
    session.restart().await.unwrap();
    assert_eq!(printed(&session, "1 + 1").await, "2");

    // Whoever says that the kernel is his own has it restarted.
    let config =
        SessionConfig { kernel_id: Some(kernel.id.clone()), owns_kernel: true, ..SessionConfig::default() };
    let owner = Session::open(gateway.endpoint(), config).await.unwrap();
    owner.run(CLOSED_OUTPUT.to_owned(), within(100)).await.unwrap();
    assert_eq!(printed(&owner, "1 + 1").await, "2");
    assert_eq!(owner.generation(), 1);
    owner.close().await;
    session.close().await;
    gateway.client().get_kernel(&kernel.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_without_output_is_restarted() {
    // One of ours ends by itself then.
    let gateway = Gateway::start().await;
    let session = open(gateway.endpoint(), None).await;
    let asked = Instant::now();
    let mute = "get_ipython().kernel.iopub_thread.socket.close()";
    session.run(mute.to_owned(), within(100)).await.unwrap();
    assert_eq!(printed(&session, "1 + 1").await, "2");
    assert_eq!(session.generation(), 1);
    assert!(asked.elapsed() < IN_TIME + IN_TIME, "{:?}", asked.elapsed());
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_id_that_changes_with_each_reply_loses_no_state_for_ever() {
    let gateway = TunedGateway::start();
    let session = open(gateway.endpoint_at(gateway.port), Some(&gateway.kernel_id)).await;
    let changing = "import uuid\nkept = 7\nsession = get_ipython().kernel.session\nsend = session.send\n\
                    def changed(*arguments, **options):\n    session.session = str(uuid.uuid4())\n    \
                    return send(*arguments, **options)\nsession.send = changed";
    session.run(changing.to_owned(), within(60)).await.unwrap();
    let mut lost = 0;
    for _ in 0..20 {
        let options = RunOptions { generation: Some(session.generation()), ..within(60) };
        match session.run("print(kept, end='')".to_owned(), options).await {
            Ok(execution) => assert_eq!(execution.stdout(), "7"),
            Err(Error::StateLost) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(session.generation() <= 3 && lost <= 3, "{} {lost}", session.generation());
    session.close().await;
}

/// What became of an execution in a kernel that others have deleted.
async fn deleted(client: &GatewayClient, session: &Session, owned: bool, is_busy: bool, what: &str) {
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    let kernel_id = session.kernel_id();
    let asked = Instant::now();
    let outcome = if is_busy {
        let mut running = begin(session, "import time\ntime.sleep(600)").await;
        client.delete_kernel(&kernel_id).await.unwrap();
        running.finish().await
    } else {
        client.delete_kernel(&kernel_id).await.unwrap();
        session.run("print('kept' in globals(), end='')".to_owned(), within(100)).await
    };
    match outcome {
        Err(Error::KernelDied { .. }) => {}
        Err(Error::KernelNotFound { .. }) if !owned && !is_busy => {}
        Ok(execution) if owned && !is_busy => assert_eq!(execution.stdout(), "False"),
        // A gateway interrupts what it shuts down: the code may come to its end before, and the next one is told.
        Ok(execution) if is_busy && execution.error.is_some() => {
            let next = session.run("1".to_owned(), within(100)).await;
            assert!(
                matches!(next, Ok(_) | Err(Error::KernelDied { .. } | Error::KernelNotFound { .. })),
                "{what}, owned: {owned}: {next:?}"
            );
        }
        outcome => panic!("{what}, owned: {owned}, busy: {is_busy}: {outcome:?}"),
    }
    assert!(asked.elapsed() < IN_TIME, "{what}, owned: {owned}, busy: {is_busy}: {:?}", asked.elapsed());
    if owned {
        assert_eq!(printed(session, "'kept' in globals()").await, "False");
        assert_ne!(session.kernel_id(), kernel_id);
        assert!(session.generation() > 0);
    } else {
        let error = session.run("1".to_owned(), within(60)).await.unwrap_err();
        assert!(matches!(error, Error::KernelNotFound { .. }), "{error:?}");
    }
}

async fn deleted_by_others(endpoint: Endpoint, what: &str) {
    let client = GatewayClient::new(endpoint.clone(), None).unwrap();
    for is_busy in [false, true] {
        let session = open(endpoint.clone(), None).await;
        deleted(&client, &session, true, is_busy, what).await;
        session.close().await;
        let kernel = client.create_kernel(None).await.unwrap();
        let session = open(endpoint.clone(), Some(&kernel.id)).await;
        deleted(&client, &session, false, is_busy, what).await;
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_others_delete_on_a_stock_gateway() {
    let gateway = Gateway::start().await;
    deleted_by_others(gateway.endpoint(), "a stock gateway").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_others_delete_on_a_jupyter_server() {
    let server = Gateway::start_server().await;
    deleted_by_others(server.endpoint(), "a Jupyter server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_others_delete_on_our_gateway() {
    let gateway = TunedGateway::start();
    deleted_by_others(gateway.endpoint_at(gateway.port), "our gateway").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_in_a_kernel_that_others_delete_is_no_ignored_interrupt() {
    let gateway = Gateway::start().await;
    let session = open(gateway.endpoint(), None).await;
    let options = RunOptions { observe: true, ..within(2) };
    let mut running = session.start("import time\nprint(1, flush=True)\ntime.sleep(600)".to_owned(), options);
    let running = running.as_mut().unwrap();
    assert!(running.next_event().await.is_some());
    gateway.client().delete_kernel(&session.kernel_id()).await.unwrap();
    let error = running.finish().await.unwrap_err();
    assert!(matches!(&error, Error::KernelDied { .. }), "{error:?}");
    assert_eq!(printed(&session, "1 + 1").await, "2");
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_others_restart_on_a_stock_gateway() {
    let gateway = Gateway::start().await;
    let session = open(gateway.endpoint(), None).await;
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    let mut running = begin(&session, "import time\ntime.sleep(600)").await;
    let asked = Instant::now();
    gateway.client().restart_kernel(&session.kernel_id()).await.unwrap();
    let error = running.finish().await.unwrap_err();
    assert!(matches!(&error, Error::KernelDied { .. }), "{error:?}");
    assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
    assert_eq!(printed(&session, "'kept' in globals()").await, "False");
    assert_eq!(session.generation(), 1);
    session.close().await;
}

/// Publishes in the gateway's name that the kernel is being restarted, or is dead, and goes on.
const FORGED: &str = "
import time
kernel = get_ipython().kernel
for state in ('restarting', 'dead', 'restarting'):
    kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': state}, parent={}, ident=b'status')
    time.sleep(0.1)
";

async fn a_forged_restart(session: &Session) {
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    // It is not believed: the code comes to its own end.
    let code = format!("{FORGED}\nprint('went on', end='')");
    let execution = session.run(code, within(60)).await.unwrap();
    assert_eq!((execution.stdout().as_ref(), execution.complete), ("went on", true));
    assert_eq!(printed(session, "kept").await, "7");
    // Nor does it outlive its timeout.
    let asked = Instant::now();
    let error = session.run(format!("{FORGED}\ntime.sleep(600)"), within(2)).await.unwrap_err();
    assert!(matches!(error, Error::ExecutionTimeout { aftermath: Aftermath::Interrupted, .. }), "{error:?}");
    // Also between two executions.
    let late = format!(
        "import threading\ndef forge():\n    time.sleep(0.5)\n    {}\n",
        FORGED.replace('\n', "\n    ")
    );
    session.run(format!("{late}\nthreading.Thread(target=forge).start()"), within(60)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(printed(session, "kept").await, "7");
    assert_eq!(session.generation(), 0);
    assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());

    // A real one is told all the same.
    let error = session.run("import os\nos._exit(1)".to_owned(), within(60)).await.unwrap_err();
    assert!(matches!(&error, Error::KernelDied { .. }), "{error:?}");
    assert_eq!(printed(session, "'kept' in globals()").await, "False");
    assert_eq!(session.generation(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_restart_is_not_believed_on_our_gateway() {
    let gateway = TunedGateway::start();
    for kernel_id in [None, Some(gateway.kernel_id.as_str())] {
        let session = open(gateway.endpoint_at(gateway.port), kernel_id).await;
        a_forged_restart(&session).await;
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_restart_is_not_believed_on_a_stock_gateway() {
    let gateway = Gateway::start().await;
    let session = open(gateway.endpoint(), None).await;
    a_forged_restart(&session).await;
    session.close().await;
}

/// A kernel that ends, and of which the gateway says so, while nobody can look: its successor's reply comes first.
async fn an_end_that_two_tell_of(proxy: &FaultProxy, session: &Session) {
    session.run("kept = 7".to_owned(), within(60)).await.unwrap();
    proxy.hold_requests(true);
    let error = session.run("import os\nos._exit(1)".to_owned(), within(100)).await.unwrap_err();
    assert!(matches!(&error, Error::KernelDied { .. }), "{error:?}");
    proxy.hold_requests(false);
    assert_eq!(printed(session, "'kept' in globals()").await, "False");
    assert_eq!(session.generation(), 1);
    // The new one is what a later word is compared with.
    let execution = session.run(format!("{FORGED}\nprint('went on', end='')"), within(60)).await.unwrap();
    assert_eq!((execution.stdout().as_ref(), execution.complete), ("went on", true));
    assert_eq!(printed(session, "'kept' in globals()").await, "False");
    assert_eq!(session.generation(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_counted_once_on_our_gateway() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(gateway.endpoint_at(proxy.port), Some(&gateway.kernel_id)).await;
    an_end_that_two_tell_of(&proxy, &session).await;
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_counted_once_on_a_stock_gateway() {
    let gateway = Gateway::start().await;
    let proxy = FaultProxy::start(gateway.port).await;
    let url = format!("http://127.0.0.1:{}/", proxy.port);
    let session = open(Endpoint::new(&url, Some(&gateway.token)).unwrap(), None).await;
    an_end_that_two_tell_of(&proxy, &session).await;
    session.close().await;
}
