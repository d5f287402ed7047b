//! The REST client against a real kernel gateway.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::gateway::{Endpoint, GatewayClient};
use support::{BOOT_LIMIT, Gateway, free_port};

const UNKNOWN: &str = "00000000-0000-0000-0000-000000000000";

/// A gateway that boots while it is waited for, and then serves every step: a boot takes a second.
#[tokio::test]
async fn a_gateway_and_its_kernels() {
    let gateway = Gateway::spawn(free_port(), &["--KernelGatewayApp.max_kernels=2"]);
    let client = gateway.client();
    client.wait_until_ready(BOOT_LIMIT).await.unwrap();
    refuses_other_tokens(&gateway).await;
    knows_its_kernelspecs(&client).await;
    kernels_live_and_end(&client).await;
    says_why_no_kernel_starts(&client).await;
    unknown_kernels_are_not_found(&client).await;
    a_wrong_base_path_is_named(&gateway).await;
}

fn client(url: &str, token: Option<&str>) -> GatewayClient {
    GatewayClient::new(Endpoint::new(url, token).unwrap(), None).unwrap()
}

async fn refuses_other_tokens(gateway: &Gateway) {
    for token in [Some("n0t-the-token"), None] {
        let client = client(&gateway.url(), token);
        let started = Instant::now();
        for error in [
            client.wait_until_ready(BOOT_LIMIT).await.unwrap_err(),
            client.create_kernel(None).await.unwrap_err(),
            client.get_kernel(UNKNOWN).await.unwrap_err(),
            client.list_kernels().await.unwrap_err(),
            client.delete_kernel(UNKNOWN).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Auth { status: 401, .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("n0t-the-token"), "{error:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

async fn knows_its_kernelspecs(client: &GatewayClient) {
    let specs = client.kernel_specs().await.unwrap();
    assert_eq!(specs.default, "python3");
    assert!(specs.names.contains(&specs.default), "{specs:?}");
}

async fn kernels_live_and_end(client: &GatewayClient) {
    assert_eq!(client.list_kernels().await.unwrap(), []);
    let unnamed = client.create_kernel(None).await.unwrap();
    let named = client.create_kernel(Some("python3")).await.unwrap();
    assert_eq!((unnamed.name.as_str(), named.name.as_str()), ("python3", "python3"));
    assert_ne!(unnamed.id, named.id);
    let found = client.get_kernel(&named.id).await.unwrap();
    assert_eq!((&found.id, found.connections), (&named.id, 0));
    assert!(!found.execution_state.is_empty() && !found.last_activity.is_empty(), "{found:?}");
    assert_eq!(client.list_kernels().await.unwrap().len(), 2);

    // The gateway was started with a limit of two.
    let error = client.create_kernel(None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Gateway { reason, .. } if reason.contains("Resource Limit")),
        "{error:?}"
    );

    client.interrupt_kernel(&named.id).await.unwrap();
    client.restart_kernel(&named.id).await.unwrap();
    assert_eq!(client.get_kernel(&named.id).await.unwrap().id, named.id);

    for kernel in [&unnamed, &named] {
        client.delete_kernel(&kernel.id).await.unwrap();
        client.delete_kernel(&kernel.id).await.unwrap();
        let error = client.get_kernel(&kernel.id).await.unwrap_err();
        assert!(
            matches!(&error, Error::KernelNotFound { kernel_id } if *kernel_id == kernel.id),
            "{error:?}"
        );
    }
    assert_eq!(client.list_kernels().await.unwrap(), []);
}

async fn says_why_no_kernel_starts(client: &GatewayClient) {
    let error = client.create_kernel(Some("fortran4")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Gateway { .. }), "{error:?}");
    assert!(text.contains("fortran4") && text.contains("python3"), "{text}");
}

async fn unknown_kernels_are_not_found(client: &GatewayClient) {
    for id in [UNKNOWN, "", ".", "..", "../kernelspecs", "a?b", "no\u{7}such\nkernel"] {
        for error in [
            client.get_kernel(id).await.unwrap_err(),
            client.interrupt_kernel(id).await.unwrap_err(),
            client.restart_kernel(id).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::KernelNotFound { .. }), "{id}: {error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
        client.delete_kernel(id).await.unwrap();
    }
}

async fn a_wrong_base_path_is_named(gateway: &Gateway) {
    let client = client(&format!("{}user/x", gateway.url()), Some(&gateway.token));
    let error = client.wait_until_ready(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(&error, Error::NotReady { reason, .. } if reason.contains("base path")), "{error:?}");
}
