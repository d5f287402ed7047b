//! A connection that breaks at any byte, on a gateway with a journal: the execution is as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "every function here is a step of the test")]

mod support;

use std::time::{Duration, Instant};

use sandkernel::Error;
use sandkernel::config::{RunOptions, SessionConfig};
use sandkernel::execution::Execution;
use sandkernel::session::{InputRequest, Reply, Session, StreamEvent};
use support::fault_proxy::{Cut, FaultProxy, Toward};
use support::tuned_gateway::TunedGateway;
use support::{Gateway, begins_and_sleeps, within, write_line};

/// Output on both streams, something displayed and updated, a large message and an error; and how often it ran.
const EVERYTHING: &str = r"
import sys
from IPython.display import display
runs = globals().get('runs', 0) + 1
sys.stdout.write('out\n'); sys.stdout.flush()
sys.stderr.write('err\n'); sys.stderr.flush()
handle = display('first', display_id='shown')
handle.update('second')
sys.stdout.write('é' * 1500 + '\n'); sys.stdout.flush()
display({'text/plain': 'x' * 3000}, raw=True)
raise ValueError('on purpose')
";

/// What has to be the same with and without a cut.
#[derive(Debug, PartialEq)]
struct Seen {
    stdout: String,
    stderr: String,
    results: Vec<String>,
    error: Option<(String, String, usize)>,
    complete: bool,
}

impl From<Execution> for Seen {
    fn from(execution: Execution) -> Self {
        let text = |item: &sandkernel::execution::DisplayItem| {
            item.data.get("text/plain").map_or_else(String::new, |value| value.as_str().to_owned())
        };
        let error = execution.error.as_ref();
        Self {
            stdout: execution.stdout().into_owned(),
            stderr: execution.stderr().into_owned(),
            results: execution.results.iter().map(text).collect(),
            error: error.map(|error| (error.name.clone(), error.value.clone(), error.traceback.len())),
            complete: execution.complete,
        }
    }
}

async fn open(gateway: &TunedGateway, proxy: &FaultProxy, dead_peer_timeout: Duration) -> Session {
    let config = SessionConfig {
        kernel_id: Some(gateway.kernel_id.clone()),
        dead_peer_timeout,
        reconnect_timeout: Duration::from_secs(20),
        ..SessionConfig::default()
    };
    Session::open(gateway.endpoint_at(proxy.port), config).await.unwrap()
}

async fn number(session: &Session, expression: &str) -> usize {
    let execution = session.run(expression.to_owned(), within(30)).await.unwrap();
    execution.results[0].data.get("text/plain").unwrap().as_str().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_byte_changes_nothing() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, &proxy, Duration::from_secs(15)).await;
    session.run(EVERYTHING.to_owned(), within(30)).await.unwrap();
    proxy.take_passed();
    let undisturbed = Seen::from(session.run(EVERYTHING.to_owned(), within(30)).await.unwrap());
    assert_eq!(undisturbed.error.as_ref().unwrap().0, "ValueError");
    assert_eq!(undisturbed.results[0], "'second'");
    let (answer_bytes, request_bytes) = (proxy.take_passed(), EVERYTHING.len() + 300);

    let positions = |count: usize, bytes: usize| (0..count).map(move |index| index * bytes / count);
    let cuts: Vec<_> = positions(300, answer_bytes)
        .map(|position| (Toward::Client, position))
        .chain(positions(60, request_bytes).map(|position| (Toward::Gateway, position)))
        .collect();
    let mut happened = 0;
    for (index, (toward, position)) in cuts.iter().enumerate() {
        let cut = if index % 2 == 0 { Cut::Fin } else { Cut::Reset };
        proxy.cut_after(*toward, *position, cut);
        let seen = session.run(EVERYTHING.to_owned(), within(30)).await;
        let seen = seen.unwrap_or_else(|error| panic!("{cut:?} {toward:?} at {position}: {error}"));
        assert_eq!(Seen::from(seen), undisturbed, "{cut:?} {toward:?} at {position}");
        happened += usize::from(proxy.disarm());
    }
    // A header is shorter or longer by a digit from run to run: the last positions may lie past the end.
    assert!(happened + 10 >= cuts.len(), "{happened} of {} cuts came about", cuts.len());
    assert_eq!(number(&session, "runs").await, cuts.len() + 2);
    assert_eq!(session.generation(), 0);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_replaced() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, &proxy, Duration::from_millis(400)).await;
    session.run(EVERYTHING.to_owned(), within(30)).await.unwrap();
    proxy.take_passed();
    let undisturbed = Seen::from(session.run(EVERYTHING.to_owned(), within(30)).await.unwrap());
    let bytes = proxy.take_passed();
    for position in (0..12).map(|index| index * bytes / 12) {
        proxy.cut_after(Toward::Client, position, Cut::Silence);
        let seen = Seen::from(session.run(EVERYTHING.to_owned(), within(30)).await.unwrap());
        assert_eq!(seen, undisturbed, "at {position}");
    }
    proxy.disarm();
    assert_eq!(number(&session, "runs").await, 14);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_in_a_row_and_between_executions_change_nothing() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, &proxy, Duration::from_secs(15)).await;
    let code = "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.02)\n'done'";
    let mut running = session.start(code.to_owned(), RunOptions { observe: true, ..within(30) }).unwrap();
    let mut events = 0;
    while running.next_event().await.is_some() {
        events += 1;
        if events % 3 == 0 {
            proxy.cut_now(if events % 2 == 0 { Cut::Fin } else { Cut::Reset });
        }
    }
    let execution = running.finish().await.unwrap();
    let lines: Vec<_> = execution.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(proxy.cuts() > 3, "{}", proxy.cuts());
    for index in 0..10 {
        proxy.cut_now(Cut::Fin);
        assert_eq!(number(&session, &index.to_string()).await, index);
    }
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_and_replied_across_cuts_arrives_once() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, &proxy, Duration::from_secs(15)).await;
    let code = "[input(str(number)) for number in range(40)] == [str(number) * 1000 for number in range(40)]";
    let options = RunOptions { observe: true, allow_stdin: true, ..within(30) };
    let mut running = session.start(code.to_owned(), options).unwrap();
    let replier = running.replier().unwrap();
    let mut asked = Vec::new();
    while let Some(event) = running.next_event().await {
        let StreamEvent::InputRequest(InputRequest { prompt, .. }) = event else { continue };
        let cut = if asked.len() % 2 == 0 { Cut::Fin } else { Cut::Reset };
        // Before the reply, after it, or not at all.
        let reply = Reply { value: prompt.repeat(1000), buffers: Vec::new() };
        if asked.len() % 3 == 0 {
            proxy.cut_now(cut);
        }
        assert!(replier.reply(reply));
        if asked.len() % 3 == 1 {
            proxy.cut_now(cut);
        }
        asked.push(prompt);
    }
    assert_eq!(asked, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(proxy.cuts() > 20, "{}", proxy.cuts());
    let execution = running.finish().await.unwrap();
    assert_eq!(execution.results[0].data.get("text/plain").unwrap().as_str(), "True");
    session.close().await;
}

/// Asks the host once, and takes so many replies as they come.
const TAKES_REPLIES: &str = "
kernel = get_ipython().kernel
kernel.session.send(
    kernel.stdin_socket, 'input_request', {'prompt': '', 'password': False}, kernel.get_parent('shell'),
    ident=kernel._get_shell_context_var(kernel._shell_parent_ident),
)
taken = []
while len(taken) < 12:
    kernel.stdin_socket.poll()
    taken.append(int(kernel.session.recv(kernel.stdin_socket)[1]['content']['value']))
taken == list(range(12))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_made_while_there_is_no_connection_all_arrive() {
    let gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let session = open(&gateway, &proxy, Duration::from_secs(15)).await;
    let options = RunOptions { observe: true, allow_stdin: true, ..within(60) };
    let mut running = session.start(TAKES_REPLIES.to_owned(), options).unwrap();
    let replier = running.replier().unwrap();
    while !matches!(running.next_event().await.unwrap(), StreamEvent::InputRequest(_)) {}
    proxy.cut_after(Toward::Gateway, 1, Cut::Reset);
    // More than is kept of what the gateway may not have received.
    let attached = bytes::Bytes::from(vec![b'b'; 4 << 20]);
    for number in 0..12 {
        assert!(replier.reply(Reply { value: number.to_string(), buffers: vec![attached.clone()] }));
    }
    let execution = running.finish().await.unwrap();
    assert_eq!(execution.results[0].data.get("text/plain").unwrap().as_str(), "True");
    assert!(proxy.disarm());
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_a_journal_gives_a_clear_error() {
    let gateway = Gateway::start().await;
    let proxy = FaultProxy::start(gateway.port).await;
    let endpoint = sandkernel::gateway::Endpoint::new(
        &format!("http://127.0.0.1:{}/", proxy.port),
        Some(&gateway.token),
    )
    .unwrap();
    let session = Session::open(endpoint, SessionConfig::default()).await.unwrap();
    let code = format!("import time\n{}\ntime.sleep(1)\nkept = 7", write_line("began"));
    let mut running = session.start(code, RunOptions { observe: true, ..within(30) }).unwrap();
    assert!(running.next_event().await.is_some());
    proxy.cut_now(Cut::Reset);
    let error = running.finish().await.unwrap_err();
    let Error::ConnectionLost { execution: Some(execution), .. } = error else { panic!("{error:?}") };
    assert_eq!(execution.stdout(), "began\n");
    // The kernel went on; the next execution comes after it.
    assert_eq!(number(&session, "kept").await, 7);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_gone_ends_what_runs_in_time() {
    let mut gateway = TunedGateway::start();
    let proxy = FaultProxy::start(gateway.port).await;
    let config = SessionConfig {
        kernel_id: Some(gateway.kernel_id.clone()),
        reconnect_timeout: Duration::from_secs(1),
        ..SessionConfig::default()
    };
    let session = Session::open(gateway.endpoint_at(proxy.port), config).await.unwrap();
    let mut running = session.start(begins_and_sleeps(), RunOptions { observe: true, ..within(30) }).unwrap();
    assert!(running.next_event().await.is_some());
    gateway.kill();
    let gone = Instant::now();
    let error = running.finish().await.unwrap_err();
    let Error::ConnectionLost { execution: Some(execution), reason } = error else { panic!("{error:?}") };
    assert_eq!(execution.stdout(), "began\n");
    assert!(reason.contains("did not come back within 1 s"), "{reason}");
    // The code's own time is 30 s.
    assert!(gone.elapsed() < Duration::from_secs(20), "{:?}", gone.elapsed());
    assert!(session.run("1".to_owned(), within(30)).await.is_err());
    session.close().await;
}
