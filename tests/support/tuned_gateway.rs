//! The gateway that the package starts: the bootstrap, with its journal and with one kernel on its way.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sandkernel::gateway::Endpoint;

use super::{LOG_VARIABLE, PYTHON_VARIABLE, signal};

/// A tuned gateway, ended with its kernels when it is dropped, or when the test's process is gone.
pub(crate) struct TunedGateway {
    pub(crate) port: u16,
    pub(crate) token: String,
    pub(crate) kernel_id: String,
    /// Of the gateway itself, which on Linux is a child of our child.
    process_id: u32,
    child: Child,
    directory: PathBuf,
}

impl TunedGateway {
    /// A gateway that answers.
    pub(crate) fn start() -> Self {
        Self::start_with(30)
    }

    /// A gateway that pings its clients each so many seconds.
    pub(crate) fn start_with(ping_interval: u32) -> Self {
        let python = std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| {
            panic!("{PYTHON_VARIABLE} has to name a Python that has jupyter_kernel_gateway")
        });
        let token = format!("test-{:032x}", rand::random::<u128>());
        let kernel_id = format!("{:08x}-0000-4000-8000-000000000000", rand::random::<u32>());
        let directory = std::env::temp_dir().join(format!("sandkernel-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&directory).expect("a directory for the gateway can be made");
        let log = if std::env::var_os(LOG_VARIABLE).is_some() { Stdio::inherit() } else { Stdio::null() };
        let mut child = Command::new(python)
            .args(["-c", "from sandkernel.gateway.program import program; exec(program())"])
            .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("python"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the gateway can be started");
        let configuration = serde_json::json!({
            "token": token, "kernel_id": kernel_id, "root": directory, "parent": std::process::id(),
            "ping_interval": ping_interval,
        });
        let stdin = child.stdin.as_mut().expect("stdin is a pipe");
        writeln!(stdin, "{configuration}").expect("the gateway reads its configuration");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is a pipe"))
            .read_line(&mut line)
            .expect("the gateway reports");
        let report: serde_json::Value = serde_json::from_str(&line).expect("the report is JSON");
        let port = report["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.unwrap_or_else(|| panic!("the gateway did not start: {report}"));
        let process_id = report["process_id"].as_u64().and_then(|number| u32::try_from(number).ok());
        let process_id = process_id.unwrap_or_else(|| panic!("the gateway has no process: {report}"));
        Self { port, token, kernel_id, process_id, child, directory }
    }

    /// Ends the gateway at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        signal("KILL", self.process_id);
        let _ = self.child.wait();
    }

    /// Stops the gateway's process, its kernels not, until it is told to continue.
    pub(crate) fn stop(&self) {
        signal("STOP", self.process_id);
    }

    /// Lets it continue.
    pub(crate) fn continue_(&self) {
        signal("CONT", self.process_id);
    }

    /// The gateway by way of another port.
    pub(crate) fn endpoint_at(&self, port: u16) -> Endpoint {
        Endpoint::new(&format!("http://127.0.0.1:{port}/"), Some(&self.token)).expect("the endpoint is valid")
    }
}

impl Drop for TunedGateway {
    fn drop(&mut self) {
        self.continue_();
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
