//! A TCP proxy that cuts connections where it is told to.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    Client,
    Gateway,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both sides are closed in order.
    Fin,
    /// Both sides are reset.
    Reset,
    /// Nothing passes any more, and nobody is told.
    Silence,
}

/// A cut that is to happen.
#[derive(Clone, Copy, Debug)]
struct Plan {
    toward: Toward,
    /// How many bytes still pass before it.
    remaining: usize,
    cut: Cut,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    passed: usize,
    cuts: usize,
    given_up: usize,
}

/// A proxy in front of a gateway on this machine.
pub(crate) struct FaultProxy {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    /// The number of the last cut, and how it is made: every connection of before ends.
    cuts: watch::Sender<(usize, Cut)>,
    /// Whether requests are held back.
    held: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    pub(crate) async fn start(gateway_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let (cuts, _) = watch::channel((0, Cut::Fin));
        let (held, released) = watch::channel(false);
        let accepting =
            tokio::spawn(accept(listener, gateway_port, Arc::clone(&state), cuts.clone(), released));
        Self { port, state, cuts, held, accepting }
    }

    /// Cuts once so many bytes have passed from now on.
    pub(crate) fn cut_after(&self, toward: Toward, bytes: usize, cut: Cut) {
        lock(&self.state).plan = Some(Plan { toward, remaining: bytes, cut });
    }

    /// Holds back every request, or no more; what is open as a websocket goes on.
    pub(crate) fn hold_requests(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// Cuts now.
    pub(crate) fn cut_now(&self, cut: Cut) {
        lock(&self.state).cuts += 1;
        self.cuts.send_modify(|last| *last = (last.0 + 1, cut));
    }

    /// Forgets what is planned. Whether the plan had come about.
    pub(crate) fn disarm(&self) -> bool {
        lock(&self.state).plan.take().is_none()
    }

    /// How many cuts there were.
    pub(crate) fn cuts(&self) -> usize {
        lock(&self.state).cuts
    }

    /// How many silent connections the gateway has ended by itself.
    pub(crate) fn given_up(&self) -> usize {
        lock(&self.state).given_up
    }

    /// How many bytes have passed to the client since the last call.
    pub(crate) fn take_passed(&self) -> usize {
        std::mem::take(&mut lock(&self.state).passed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cuts.send_modify(|last| *last = (last.0 + 1, Cut::Fin));
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    gateway_port: u16,
    state: Arc<Mutex<State>>,
    cuts: watch::Sender<(usize, Cut)>,
    held: watch::Receiver<bool>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let Ok(gateway) = TcpStream::connect(("127.0.0.1", gateway_port)).await else { continue };
        let _ = (client.set_nodelay(true), gateway.set_nodelay(true));
        tokio::spawn(relay(client, gateway, Arc::clone(&state), cuts.clone(), held.clone()));
    }
}

async fn relay(
    mut client: TcpStream,
    mut gateway: TcpStream,
    state: Arc<Mutex<State>>,
    cuts: watch::Sender<(usize, Cut)>,
    mut held: watch::Receiver<bool>,
) {
    let mut cut = cuts.subscribe();
    let mut is_websocket = false;
    let (mut from_client, mut from_gateway) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        let (toward, read) = tokio::select! {
            _ = cut.changed() => break,
            read = client.read(&mut from_client) => (Toward::Gateway, read),
            read = gateway.read(&mut from_gateway) => (Toward::Client, read),
        };
        let Ok(count @ 1..) = read else { return };
        if toward == Toward::Gateway && !is_websocket {
            if held.wait_for(|held| !held).await.is_err() {
                return;
            }
            let request = String::from_utf8_lossy(&from_client[..count]).to_ascii_lowercase();
            is_websocket = request.contains("upgrade: websocket");
        }
        let (allowed, planned) = pass(&state, toward, count);
        let written = match toward {
            Toward::Gateway => gateway.write_all(&from_client[..allowed]).await,
            Toward::Client => client.write_all(&from_gateway[..allowed]).await,
        };
        if written.is_err() {
            return;
        }
        if let Some(planned) = planned {
            cuts.send_modify(|last| *last = (last.0 + 1, planned));
            break;
        }
    }
    let how = cut.borrow_and_update().1;
    match how {
        Cut::Fin => {}
        Cut::Reset => {
            for stream in [&client, &gateway] {
                let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
            }
        }
        // Until the next cut of another kind; what the client sends meanwhile is left in its socket.
        Cut::Silence => loop {
            tokio::select! {
                changed = cut.changed() => {
                    if changed.is_err() || cut.borrow_and_update().1 != Cut::Silence {
                        return;
                    }
                }
                read = gateway.read(&mut from_gateway) => if !matches!(read, Ok(1..)) {
                    lock(&state).given_up += 1;
                    // The client hears nothing of it either.
                    let _ = cut.wait_for(|(_, cut)| *cut != Cut::Silence).await;
                    return;
                },
            }
        },
    }
}

/// How many of the bytes may pass, and whether the planned cut comes after them.
fn pass(state: &Mutex<State>, toward: Toward, count: usize) -> (usize, Option<Cut>) {
    let mut state = lock(state);
    if toward == Toward::Client {
        state.passed += count;
    }
    let Some(plan) = state.plan.as_mut().filter(|plan| plan.toward == toward) else { return (count, None) };
    if count < plan.remaining {
        plan.remaining -= count;
        return (count, None);
    }
    let (allowed, cut) = (plan.remaining, plan.cut);
    state.plan = None;
    state.cuts += 1;
    (allowed, Some(cut))
}
