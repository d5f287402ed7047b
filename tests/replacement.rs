//! A kernel that its gateway has no more, and the one in its place.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::Duration;

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::session::Session;
use support::{Gateway, within};

fn config() -> SessionConfig {
    SessionConfig { interrupt_grace: Duration::from_secs(1), ..SessionConfig::default() }
}

async fn printed(session: &Session, expression: &str) -> String {
    session.run(format!("print({expression})"), within(60)).await.unwrap().stdout().into_owned()
}

/// A stock gateway gives a kernel up that dies again and again right after its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_the_gateway_gave_up_is_replaced() {
    // It looks every 3 s by default.
    let gateway = Gateway::start_with(&["--KernelRestarter.time_to_dead=0.3"]).await;
    let session = Session::open(gateway.endpoint(), config()).await.unwrap();
    let first = session.kernel_id();
    let guest_config = SessionConfig { kernel_id: Some(first.as_ref().to_owned()), ..config() };
    let guest = Session::open(gateway.endpoint(), guest_config).await.unwrap();
    let mut deaths = 0;
    loop {
        deaths += 1;
        // A death that comes late, on a machine under load, makes the gateway count anew.
        assert!(deaths <= 30, "the gateway does not give the kernel up");
        let error = session.run("import os; os._exit(1)".to_owned(), within(60)).await.unwrap_err();
        let Error::KernelDied { reason, .. } = error else { panic!("{error:?}") };
        assert_eq!(session.generation(), deaths);
        if reason.contains("could not start") {
            break;
        }
    }
    assert!(deaths >= 6, "{deaths}");
    let generation = session.generation();
    assert!(matches!(gateway.client().get_kernel(&first).await, Err(Error::KernelNotFound { .. })));

    // Nobody but who created the kernel creates another one.
    let error = loop {
        match guest.run("1".to_owned(), within(60)).await.unwrap_err() {
            Error::KernelDied { .. } | Error::ConnectionLost { .. } => {}
            error => break error,
        }
    };
    assert!(matches!(error, Error::KernelNotFound { .. }), "{error:?}");
    assert!(matches!(guest.restart().await, Err(Error::KernelNotFound { .. })));
    assert_eq!(gateway.client().list_kernels().await.unwrap(), []);

    assert_eq!(printed(&session, "20 + 22").await, "42\n");
    assert_ne!(session.kernel_id(), first);
    // The loss was counted when the kernel died, and nothing was lost since.
    assert_eq!(session.generation(), generation);

    // A kernel that others have deleted is replaced, which is a loss of its own. The gateway says nothing of the
    // deletion, and the code nothing either; that the interrupt finds no kernel does.
    session.run("kept = 1".to_owned(), within(60)).await.unwrap();
    let second = session.kernel_id();
    gateway.client().delete_kernel(&second).await.unwrap();
    let options = RunOptions { timeout: Some(Duration::from_millis(300)), ..within(60) };
    let error = session.run("1".to_owned(), options).await.unwrap_err();
    assert!(matches!(error, Error::KernelDied { .. }), "{error:?}");
    assert_eq!(printed(&session, "'kept' in globals()").await, "False\n");
    assert_ne!(session.kernel_id(), second);
    assert_eq!(session.generation(), generation + 1);

    // Likewise by a restart on request.
    let third = session.kernel_id();
    gateway.client().delete_kernel(&third).await.unwrap();
    session.restart().await.unwrap();
    assert_ne!(session.kernel_id(), third);
    assert_eq!(session.generation(), generation + 2);
    assert_eq!(printed(&session, "1 + 1").await, "2\n");
    guest.close().await;
    session.close().await;
    assert_eq!(gateway.client().list_kernels().await.unwrap(), []);
}
