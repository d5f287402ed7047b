//! What the tests of the core share: real gateways, and servers that misbehave.

// Each test binary compiles this module for itself and uses its own share of it.
#![allow(dead_code)]

pub(crate) mod connect_proxy;
pub(crate) mod fault_proxy;
pub(crate) mod fault_server;
pub(crate) mod tls_front;
pub(crate) mod tuned_gateway;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sandkernel::config::RunOptions;
use sandkernel::gateway::{Endpoint, GatewayClient};

/// Python with `jupyter_kernel_gateway` and `ipykernel`.
const PYTHON_VARIABLE: &str = "SANDKERNEL_TEST_PYTHON";

/// Set to anything, it shows what the gateways of the tests log.
const LOG_VARIABLE: &str = "SANDKERNEL_TEST_LOG";

/// How long a gateway may take to boot on a machine under load.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// How long a gateway may take to end its kernels and itself.
const EXIT_LIMIT: Duration = Duration::from_secs(15);

/// The stock gateway. It ends, with its kernels, when the test's process is gone, however that went: its standard
/// input is then closed. The module that is refused takes a second to import, and is not used.
const BOOTSTRAP: &str = r#"
import atexit, os, shutil, signal, sys, threading
def leave():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
threading.Thread(target=leave, daemon=True).start()
atexit.register(shutil.rmtree, os.getcwd(), ignore_errors=True)
sys.modules["rfc3987_syntax"] = None
if "--server" in sys.argv:
    sys.argv.remove("--server")
    from jupyter_server.serverapp import launch_new_instance as launch_instance
else:
    from kernel_gateway import launch_instance
launch_instance()
"#;

/// Options for code that is to end within so many seconds.
pub(crate) fn within(seconds: u64) -> RunOptions {
    RunOptions { timeout: Some(Duration::from_secs(seconds)), ..RunOptions::default() }
}

/// A real kernel gateway in a process of its own, ended with its kernels when it is dropped.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    pub(crate) token: String,
    child: Child,
    directory: PathBuf,
}

impl Gateway {
    /// A gateway that answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A gateway that answers, with options such as `--ZMQChannelsWebsocketConnection.limit_rate=False`.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let mut gateway = Self::spawn(free_port(), options);
        let ready = gateway.client().wait_until_ready(BOOT_LIMIT).await;
        if let Err(error) = ready {
            let status = gateway.child.try_wait().expect("the gateway's process can be asked for its state");
            panic!("{error}; its process: {status:?}; {LOG_VARIABLE}=1 shows its log");
        }
        gateway
    }

    /// A Jupyter server that answers, in the place of a gateway.
    pub(crate) async fn start_server() -> Self {
        let server =
            Self::spawn_program(free_port(), "ServerApp", &["--server", "--no-browser", "--allow-root"]);
        server.client().wait_until_ready(BOOT_LIMIT).await.expect("the server answers");
        server
    }

    /// A gateway that has yet to boot.
    pub(crate) fn spawn(port: u16, options: &[&str]) -> Self {
        Self::spawn_program(port, "KernelGatewayApp", options)
    }

    fn spawn_program(port: u16, name: &str, options: &[&str]) -> Self {
        let python = std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| {
            panic!("{PYTHON_VARIABLE} has to name a Python that has jupyter_kernel_gateway and ipykernel")
        });
        let token = format!("test-{:032x}", rand::random::<u128>());
        let directory = std::env::temp_dir().join(format!("sandkernel-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the gateway can be made");
        let log = || if std::env::var_os(LOG_VARIABLE).is_some() { Stdio::inherit() } else { Stdio::null() };
        let child = Command::new(python)
            .args(["-c", BOOTSTRAP])
            .arg(format!("--{name}.ip=127.0.0.1"))
            .arg(format!("--{name}.port={port}"))
            .arg(format!("--{name}.port_retries=0"))
            .args(options)
            .env("KG_AUTH_TOKEN", &token)
            .env("JUPYTER_TOKEN", &token)
            .env("KG_LIST_KERNELS", "True")
            .env("JUPYTER_RUNTIME_DIR", directory.join("runtime"))
            .env("IPYTHONDIR", directory.join("ipython"))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|error| panic!("{PYTHON_VARIABLE} can't be run: {error}"));
        Self { port, token, child, directory }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.url(), Some(&self.token)).expect("the endpoint of a test gateway is valid")
    }

    pub(crate) fn client(&self) -> GatewayClient {
        GatewayClient::new(self.endpoint(), None).expect("a client for a test gateway can be made")
    }

    /// Ends the gateway at once, as a crash would: its kernels notice by themselves.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.wait(EXIT_LIMIT).is_none() {
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A loopback port that nobody listens on, and that nobody else takes while this process lives.
///
/// It is from below the range out of which the system gives ports to outgoing connections and to sockets bound to
/// port 0. Among the tests, a port is whose who has the UDP port of that number.
pub(crate) fn free_port() -> u16 {
    static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    loop {
        let port = rand::random_range(12_000..30_000);
        let Ok(reserved) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reserved);
            return port;
        }
    }
}

/// Code that writes a line as one message: `print` writes the end of a line by itself.
pub(crate) fn write_line(text: &str) -> String {
    format!("__import__('sys').stdout.write('{text}\\n') and __import__('sys').stdout.flush()")
}

/// Code that says that it has begun, and sleeps.
pub(crate) fn begins_and_sleeps() -> String {
    format!("import time\n{}\ntime.sleep(600)", write_line("began"))
}

/// Time limits for code that has to have begun when its time is over; tried until it had. On an idle machine the
/// first one is enough.
pub(crate) fn time_limits() -> impl Iterator<Item = Duration> {
    [300, 1_200, 4_800, 19_200].into_iter().map(Duration::from_millis)
}

/// Sends a process a signal, as `kill` does.
pub(crate) fn signal(name: &str, process_id: u32) {
    let status = Command::new("kill").args([format!("-{name}"), process_id.to_string()]).status();
    assert!(
        status.is_ok_and(|status| status.success()) || name == "CONT",
        "SIG{name} can be sent to {process_id}"
    );
}
