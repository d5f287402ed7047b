//! The way to the kernel: the websocket, opened when it is needed, and what is known of who is at its other end.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Shared;
use super::counts::Counts;
use super::inquiry::{self, Finding};
use super::open::{self, DELETE_WITHIN};
use super::probe::{PATIENCE, PATIENCE_WITH_A_NEW_KERNEL, hear_the_kernel};
use super::replay::{Refused, Replay};
use crate::channel::{self, Broken, Connection, Deadlines, Keepalive, Resumption, Target};
use crate::error::Seconds;
use crate::protocol::{Content, ExecutionState, Frame, Message, Subprotocol};
use crate::{Error, Result};

/// What a message past the kept bounds may add: the parts of a message that are not kept.
const MESSAGE_OVERHEAD_BYTES: usize = 16 * 1024 * 1024;

/// How long a gateway is given to say goodbye.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);

/// How long to wait between attempts to get a lost connection back.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a caller whose connection is lost waits to learn whether the kernel is gone, too.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// A kernel has one session for as long as its process lives. One that names another with each reply does not tell
/// who it is: this many changes are believed within this time.
const CHANGES_BELIEVED: u32 = 3;
const CHANGES_WITHIN: Duration = Duration::from_secs(60);

const MISSING: &str = "the gateway has it no more";

/// How long the gateway has to say whether its kernel is done.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How many connections in a row may carry parts of a message in vain: the smallest part that counts takes less than a
/// second, mostly.
const MOST_IN_VAIN: usize = 10;

/// How many messages have come, how much of the next one, and the same of what the gateway has received.
type Progress = (u64, usize, u64, Option<(u64, usize)>);

/// What can be wrong with the other end.
#[derive(Debug)]
pub(super) enum Gone {
    /// The connection is lost, and why.
    Lost(String),
    /// The gateway says that the kernel's process has ended.
    Died(&'static str),
    /// The kernel's process is said to have ended, maybe by the code that runs there. Nothing is lost so far.
    Suspected,
    /// The connection is lost, and is to be taken up where it was: [`Link::recover`].
    Interrupted,
}

// Each flag is apart from the others.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Link {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// The gateway keeps what it could not deliver for a client that comes back under the same id.
    session_id: String,
    messages_sent: u64,
    /// What the gateway's journal goes by.
    counts: Counts,
    /// What the kernel's record goes by, where the gateway keeps none and the kernel does.
    replay: Option<Box<Replay>>,
    /// Since when the connection is lost, where it may come back, and why.
    lost: Option<(Instant, String)>,
    /// How far the messages had got that were on their way when it was lost last, whether it had carried much then, and how
    /// often in a row that was in vain.
    progress: Progress,
    carried_much: bool,
    in_vain: usize,
    /// Whether the gateway could not be reached for as long as it is waited for.
    hopeless: bool,
    /// The kernel's own session id: another process has another one.
    kernel_session: Option<String>,
    /// How often that changed, and since when.
    changes: (u32, Instant),
    /// The session in which the kernel published when the websocket was opened.
    published_session: Option<String>,
    /// How the kernel's process is said to have ended, until that is known to be so or not.
    suspected: Option<&'static str>,
    /// Whether a kernel that was found replaced has yet to show that it runs code.
    unproven: bool,
    /// Whether something was sent to the kernel since its state was last found lost.
    has_state: bool,
    /// Whether the kernel was replaced by the gateway, and has not been heard since.
    replaced: bool,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connection: None,
            session_id: new_session_id(),
            messages_sent: 0,
            counts: Counts::default(),
            replay: None,
            lost: None,
            progress: Progress::default(),
            carried_much: false,
            in_vain: 0,
            hopeless: false,
            kernel_session: None,
            changes: (0, Instant::now()),
            published_session: None,
            suspected: None,
            unproven: false,
            has_state: false,
            replaced: false,
        }
    }

    /// Opens the websocket if there is none; what an earlier one missed concerns nobody any more. A kernel of our own
    /// that the gateway has no more, because it died too often or the gateway itself was restarted, is replaced.
    pub(super) async fn connect(&mut self) -> Result<Subprotocol> {
        // The loss is counted; a new connection is opened below.
        let _ = self.resolve().await;
        if self.counts.is_behind() {
            // What was on its way concerns nobody any more: on another connection, it is left out.
            self.connection = None;
        }
        self.counts.confirm();
        self.replay = None;
        let began = Instant::now();
        let limit = self.shared.config.reconnect_timeout;
        let mut pause = FIRST_PAUSE;
        while self.connection.is_none() {
            let patience = if self.hopeless { Duration::ZERO } else { limit.saturating_sub(began.elapsed()) };
            match self.open_within(self.deadlines(patience)).await {
                Ok(_) => {}
                Err(Error::KernelNotFound { .. }) if self.shared.may_replace() => {
                    self.create_another_kernel().await?;
                }
                // Nothing was asked of the kernel yet, so that it may as well be asked a moment later. Where that was
                // in vain before, it is not waited for again.
                Err(Error::ConnectionLost { .. }) if !self.hopeless && began.elapsed() + pause < limit => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    self.hopeless = true;
                    return Err(error);
                }
            }
        }
        self.connection.as_ref().map(Connection::subprotocol).ok_or(Error::Closed)
    }

    /// Gives the connection up, since the gateway is gone.
    pub(super) fn disconnect(&mut self) {
        (self.connection, self.lost, self.hopeless) = (None, None, true);
    }

    /// Opens the websocket at the first attempt. Whether the session goes on where it was.
    pub(super) async fn open(&mut self) -> Result<bool> {
        self.open_within(self.deadlines(Duration::ZERO)).await
    }

    fn deadlines(&self, patience: Duration) -> Deadlines {
        Deadlines { whole: self.shared.config.connect_timeout, patience }
    }

    /// Opens the websocket. Whether the session goes on where it was.
    pub(super) async fn open_within(&mut self, deadlines: Deadlines) -> Result<bool> {
        let began = Instant::now();
        let received = (self.counts.received, self.counts.assembly.len());
        let (mut connection, resumption) =
            open_websocket(&self.shared, &self.session_id, received, deadlines).await?;
        let resumed = match resumption {
            Resumption::Resumed { received, partial } => {
                // The answer that said so the first time may never have come.
                self.counts.journaled = true;
                if self.is_in_vain((self.counts.received, self.counts.assembly.len(), received, partial)) {
                    // Under the same id it would all come again.
                    self.connection = Some(connection);
                    self.start_anew();
                    let reason = format!(
                        "it ended {MOST_IN_VAIN} times in a row in the middle of a large message, of which nothing more \
                         arrived"
                    );
                    return Err(Error::ConnectionLost { reason, execution: None });
                }
                self.counts.take_up(received, partial)?;
                connection.go_on_with(mem::take(&mut self.counts.assembly));
                true
            }
            Resumption::New | Resumption::Unsupported => {
                self.counts = Counts::new(resumption == Resumption::New);
                false
            }
        };
        if !self.counts.probed {
            let lost = |reason| Error::ConnectionLost { reason, execution: None };
            self.counts.send_again(&mut connection).await.map_err(lost)?;
            let is_new = self.replaced || (self.shared.owned && !self.has_state);
            let patience = if is_new { PATIENCE_WITH_A_NEW_KERNEL } else { PATIENCE };
            let patience = patience.min(deadlines.whole.saturating_sub(began.elapsed()));
            let known = self.shared.language.get().is_some();
            let heard = hear_the_kernel(&mut connection, &mut self.counts, &self.session_id, patience, known);
            let heard = heard.await.map_err(|broken| lost(broken.to_string()))?;
            self.published_session = heard.session;
            if let Some(language) = heard.language.filter(|language| !language.is_empty()) {
                // The first word stands: another kernel in its place is of the same kind.
                let _ = self.shared.language.set(language);
            }
            self.counts.probed = true;
            self.counts.confirm();
        }
        if let Some(replay) = &mut self.replay {
            Box::pin(ask_for_what_was_missed(&mut connection, replay, &self.session_id)).await?;
        }
        self.shared.journaled.store(self.counts.journaled, Ordering::Release);
        (self.lost, self.hopeless, self.replaced) = (None, false, false);
        self.connection = Some(connection);
        Ok(resumed)
    }

    /// Creates a kernel in the place of one of ours that the gateway has no more.
    pub(super) async fn create_another_kernel(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        // A front that does not know the way to the gateway for a moment gives the same status: the kernel is gone
        // where the gateway itself says so, which is also the one to create another.
        let gone = shared.kernel_id();
        match shared.gateway.get_kernel(&gone).await {
            Err(Error::KernelNotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Error::KernelNotFound { kernel_id: gone.as_ref().to_owned() }),
        }
        // Of the same kind, also where it was given by its id.
        let name = shared.config.kernel_name.clone().or_else(|| shared.kernel_name.clone());
        let created = open::create_kernel(&shared.gateway, name, shared.config.connect_timeout).await?;
        shared.set_kernel_id(&created.take_over());
        shared.note_restarts(Some(0));
        self.start_anew();
        // Otherwise the loss has been counted when the kernel died.
        if self.has_state {
            self.state_is_lost();
        }
        Ok(())
    }

    /// An id for the next message, and the id of the session that sends it.
    pub(super) fn next_message_id(&mut self) -> (String, &str) {
        self.messages_sent += 1;
        (format!("{}_{}", self.session_id, self.messages_sent), &self.session_id)
    }

    /// Begins an execution: from now on, a cut is survived where the gateway or the kernel keeps what is missed.
    pub(super) fn protect(&mut self, msg_id: &str) {
        let recorded = !self.counts.journaled && self.shared.keeps_record();
        self.replay = recorded.then(|| Box::new(Replay::new(msg_id)));
    }

    /// Notes that nobody waits for what comes of the execution any more.
    pub(super) fn unprotect(&mut self) {
        self.replay = None;
    }

    /// Whether the connection is lost, and is to be taken up before anything is sent: until then, no more can be kept
    /// of it than a bounded part.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Sends a frame that the kernel takes twice without harm.
    pub(super) async fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        if let Some(replay) = &mut self.replay {
            replay.sends(None, &frame);
        }
        self.transmit(frame).await
    }

    /// Sends a frame that the kernel is to take once.
    pub(super) async fn send_once(&mut self, msg_id: &str, frame: Frame) -> Result<(), Gone> {
        if let Some(replay) = &mut self.replay {
            replay.sends(Some(msg_id), &frame);
        }
        self.transmit(frame).await
    }

    /// Sends a frame; where the connection is lost and may come back, it is sent then.
    async fn transmit(&mut self, frame: Frame) -> Result<(), Gone> {
        self.has_state = true;
        self.counts.sends(&frame);
        match &mut self.connection {
            // It is among what is sent next.
            Some(_) if self.counts.is_behind() => Ok(()),
            Some(_) if self.replay.as_ref().is_some_and(|replay| replay.is_behind()) => Ok(()),
            Some(connection) => connection.send(frame).await.or_else(|reason| self.note_lost(reason)),
            // It is being taken up, and then what the gateway has not received is sent again: this, too.
            None if self.lost.is_some() => Ok(()),
            None => Err(Gone::Lost("it is not open".to_owned())),
        }
    }

    /// The next message of the kernel; without a connection there never is one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Message, Gone> {
        loop {
            match self.next_uninterrupted().await {
                Err(Gone::Interrupted) => self.recover().await?,
                outcome => return outcome,
            }
        }
    }

    /// Takes up a lost connection where it was. Who drops this in the middle, again and again, leaves a gateway with
    /// connections of which it may take a dead one for the living: it is not to be waited for beside anything else that
    /// comes often.
    pub(super) async fn recover(&mut self) -> Result<(), Gone> {
        match self.lost.take() {
            Some((since, reason)) => self.resume(since, reason).await,
            None => Ok(()),
        }
    }

    /// The next message of the kernel, as [`Link::next`], unless the connection is lost and to be taken up.
    pub(super) async fn next_uninterrupted(&mut self) -> Result<Message, Gone> {
        loop {
            if let Some(message) = self.replay.as_mut().and_then(|replay| replay.ready()) {
                return Ok(message);
            }
            let Some(connection) = &mut self.connection else {
                if self.lost.is_some() {
                    return Err(Gone::Interrupted);
                }
                return std::future::pending().await;
            };
            if self.counts.is_behind() {
                if let Err(reason) = self.counts.send_again(connection).await {
                    self.note_lost(reason)?;
                }
                continue;
            }
            let received = match &mut self.replay {
                None => connection.next().await,
                // In a box: where it is not needed, it is not to make what holds this larger.
                Some(replay) => Box::pin(next_across_a_cut(connection, replay)).await?,
            };
            match received {
                Ok(message) => {
                    self.counts.received += 1;
                    if let Some(reason) = death_notice(&message) {
                        self.suspected = Some(reason);
                        return Err(Gone::Suspected);
                    }
                    if self.replay.is_none() {
                        return Ok(message);
                    }
                    if let Some(message) = self.take_across_a_cut(message)? {
                        return Ok(message);
                    }
                }
                Err(Broken::Lost(reason)) => self.note_lost(reason)?,
                Err(broken @ Broken::TooLarge { .. }) => {
                    // Under the same id it would come again, and again end the connection.
                    self.start_anew();
                    return Err(Gone::Lost(format!(
                        "{broken}; raise max_result_bytes for a result or max_output_bytes for printed text, or let \
                         the code give out less at once"
                    )));
                }
            }
        }
    }

    /// Takes a message of an execution that the kernel keeps a record of; `None` where there is nothing new in it.
    fn take_across_a_cut(&mut self, message: Message) -> Result<Option<Message>, Gone> {
        let Some(replay) = &mut self.replay else { return Ok(Some(message)) };
        match replay.take(message) {
            Ok(taken) => Ok(taken),
            Err(Refused::Unknown(kernel_session)) => {
                if self.kernel_session.as_ref().is_none_or(|known| *known == kernel_session) {
                    return Err(Gone::Lost("the kernel has no record of what was missed".to_owned()));
                }
                self.another_process_replied(&kernel_session);
                Err(Gone::Died("another process was found in its place"))
            }
            Err(Refused::Useless(reason)) => {
                Err(Gone::Lost(format!("the connection was lost and is there again; {reason}")))
            }
        }
    }

    /// Notes that the connection is lost, for good where neither the gateway nor the kernel keeps what is missed.
    fn note_lost(&mut self, reason: String) -> Result<(), Gone> {
        if let Some(connection) = self.connection.take() {
            self.carried_much = connection.has_carried_much();
            self.counts.assembly = connection.into_assembly();
        }
        if self.counts.journaled || self.replay.is_some() {
            self.lost = Some((Instant::now(), reason));
            Ok(())
        } else {
            Err(Gone::Lost(reason))
        }
    }

    /// Notes how far the messages have got that are on their way. Whether the session is of no more use: its connection
    /// ends again and again, with no more of them each time.
    fn is_in_vain(&mut self, progress: Progress) -> bool {
        let in_vain = mem::take(&mut self.carried_much) && progress == self.progress;
        self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        self.progress = progress;
        self.in_vain >= MOST_IN_VAIN
    }

    /// Takes up the session where it was.
    async fn resume(&mut self, since: Instant, reason: String) -> Result<(), Gone> {
        let limit = self.shared.config.reconnect_timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            // Dropped in the middle, it is taken up by the next call.
            self.lost = Some((since, reason.clone()));
            let remaining = (since + limit).saturating_duration_since(Instant::now());
            // A kernel that is busy may not answer the probe at once.
            let patience = if self.replay.is_some() { PATIENCE } else { Duration::ZERO };
            let failure = match timeout(remaining + patience, self.open()).await {
                Ok(Ok(resumed)) if resumed || self.replay.is_some() => return Ok(()),
                Ok(Ok(_)) => {
                    return Err(Gone::Lost(format!(
                        "{reason}; the gateway can't say what it sent since, so the outcome is not known"
                    )));
                }
                Ok(Err(Error::KernelNotFound { .. })) => {
                    self.lost = None;
                    self.kernel_was_replaced();
                    return Err(Gone::Died(MISSING));
                }
                Ok(Err(Error::ConnectionLost { reason, .. })) if self.lost.is_none() => {
                    return Err(Gone::Lost(reason));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "there was no answer".to_owned(),
            };
            if Instant::now() + pause >= since + limit {
                (self.lost, self.hopeless) = (None, true);
                return Err(Gone::Lost(format!(
                    "{reason}; it did not come back within {}: {failure}",
                    Seconds(limit)
                )));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Notes who replied: a kernel that was replaced while nobody listened gives itself away here.
    pub(super) fn heard_from(&mut self, kernel_session: &str) {
        if kernel_session.is_empty() || self.kernel_session.as_deref() == Some(kernel_session) {
            return;
        }
        if self.kernel_session.is_some() {
            if self.changes.1.elapsed() > CHANGES_WITHIN {
                self.changes = (0, Instant::now());
            }
            self.changes.0 += 1;
            if self.changes.0 <= CHANGES_BELIEVED {
                self.another_process_replied(kernel_session);
            }
        }
        self.kernel_session = Some(kernel_session.to_owned());
    }

    /// Notes that the kernel is another process than before, as its reply shows. A word of the gateway that the one before
    /// has ended tells no more than that, and what comes is compared with the new one: a loss is counted once.
    fn another_process_replied(&mut self, kernel_session: &str) {
        if self.published_session == self.kernel_session {
            self.published_session = Some(kernel_session.to_owned());
        }
        self.suspected = None;
        self.shared.note_restarts(None);
        self.state_is_lost();
    }

    /// Asks whether the gateway still has the kernel.
    pub(super) fn look(&self) -> impl Future<Output = Finding> + Send + 'static {
        inquiry::look(Arc::clone(&self.shared))
    }

    /// Asks whether the kernel is another process than before.
    pub(super) fn compare(&self) -> impl Future<Output = Finding> + Send + 'static {
        inquiry::compare(Arc::clone(&self.shared), self.published_session.clone())
    }

    /// Notes what was found out.
    pub(super) fn conclude(&mut self, finding: Finding) -> Result<(), Gone> {
        let suspected = self.suspected.take();
        let reason = match (finding, suspected) {
            (Finding::Missing, _) => suspected.unwrap_or(MISSING),
            (Finding::Replaced | Finding::Unknown, Some(reason)) => reason,
            (Finding::Replaced | Finding::Unknown | Finding::Unchanged, _) => return Ok(()),
        };
        self.kernel_was_replaced();
        // Where nobody could tell, it may be that the code goes on.
        self.unproven = finding == Finding::Unknown;
        Err(Gone::Died(reason))
    }

    /// Finds out what it is about a suspicion, if there is one. May be dropped and called again.
    pub(super) async fn resolve(&mut self) -> Result<(), Gone> {
        if self.suspected.is_some() {
            // Boxed, as it is large and rare.
            let finding = Box::pin(self.compare()).await;
            self.conclude(finding)?;
        }
        Ok(())
    }

    /// Tells a connection that was closed from one whose kernel was deleted: what there is to say of it.
    pub(super) async fn examine(&mut self, gone: Gone) -> Gone {
        if matches!(gone, Gone::Lost(_))
            && let Ok(Finding::Missing) = timeout(LOOK_WITHIN, self.look()).await
            && let Err(missing) = self.conclude(Finding::Missing)
        {
            return missing;
        }
        gone
    }

    /// Whether the kernel has yet to show that it runs code; tells so once.
    pub(super) fn take_unproven(&mut self) -> bool {
        mem::take(&mut self.unproven)
    }

    /// A number that changes whenever the kernel's state is found lost.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Notes that the kernel is another process than before.
    fn state_is_lost(&mut self) {
        self.kernel_session = None;
        self.has_state = false;
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that another kernel is in the place of the one before. What that one said must not be replayed.
    fn kernel_was_replaced(&mut self) {
        self.start_anew();
        self.state_is_lost();
        self.replaced = true;
    }

    /// Begins another session with the gateway.
    fn start_anew(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Not waited for, but said: the gateway need not keep the session.
            tokio::spawn(connection.close(FAREWELL));
        }
        (self.lost, self.suspected, self.replay) = (None, None, None);
        self.counts = Counts::default();
        self.in_vain = 0;
        self.session_id = new_session_id();
    }

    /// Restarts the kernel by way of the gateway.
    pub(super) async fn restart(&mut self) -> Result<()> {
        match self.begin_restart().await.unwrap_or(Err(Error::Closed)) {
            Err(Error::KernelNotFound { .. }) if self.shared.may_replace() => {
                self.create_another_kernel().await
            }
            outcome => outcome,
        }
    }

    /// Asks the gateway to restart the kernel, whether or not somebody waits for that.
    pub(super) fn begin_restart(&mut self) -> JoinHandle<Result<()>> {
        self.kernel_was_replaced();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let kernel_id = shared.kernel_id();
            shared.gateway.restart_kernel(&kernel_id).await?;
            if shared.note_restarts(None).is_some()
                && let Ok(kernel) = shared.gateway.get_kernel(&kernel_id).await
            {
                shared.note_restarts(kernel.restarts);
            }
            Ok(())
        })
    }

    /// Asks the gateway to interrupt the kernel.
    pub(super) fn interrupt(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move { shared.gateway.interrupt_kernel(&shared.kernel_id()).await }
    }

    /// Whether data is arriving whose end is not in sight, from a kernel that is done, as the gateway says.
    pub(super) async fn is_kernel_done(&self) -> bool {
        if !self.connection.as_ref().is_some_and(Connection::is_receiving) {
            return false;
        }
        let kernel_id = self.shared.kernel_id();
        let asked = timeout(ANSWER_WITHIN, self.shared.gateway.get_kernel(&kernel_id)).await;
        asked.is_ok_and(|kernel| kernel.is_ok_and(|kernel| kernel.execution_state == "idle"))
    }

    /// Whether the kernel is nobody else's, so that it may be restarted, and another one may take its place.
    pub(super) fn may_replace_its_kernel(&self) -> bool {
        self.shared.may_replace()
    }

    /// How long code may take to end after an interrupt.
    pub(super) fn interrupt_grace(&self) -> Duration {
        self.shared.config.interrupt_grace
    }

    /// Closes the connection, and deletes the kernel if it is ours.
    pub(super) async fn close(&mut self) {
        let owned = self.shared.owned;
        if owned && self.replaced {
            // A gateway that deletes a kernel while it starts it anew leaves the new process behind.
            let _ = timeout(DELETE_WITHIN, self.open()).await;
        }
        if let Some(connection) = self.connection.take() {
            connection.close(FAREWELL).await;
        }
        if owned {
            let _ = timeout(DELETE_WITHIN, self.shared.gateway.delete_kernel(&self.shared.kernel_id())).await;
        }
    }
}

async fn ask_for_what_was_missed(
    connection: &mut Connection,
    replay: &mut Replay,
    session_id: &str,
) -> Result<()> {
    for frame in replay.ask(connection.subprotocol(), session_id)? {
        connection.send(frame).await.map_err(|reason| Error::ConnectionLost { reason, execution: None })?;
    }
    Ok(())
}

/// Sends what is to be sent again, and waits for the next message. May be dropped and called again: what may have been
/// sent is sent again, and the kernel takes it once.
async fn next_across_a_cut(
    connection: &mut Connection,
    replay: &mut Replay,
) -> Result<Result<Message, Broken>, Gone> {
    while let Some(frame) = replay.outgoing() {
        if let Err(reason) = connection.send(frame).await {
            return Ok(Err(Broken::Lost(reason)));
        }
        replay.went_out();
    }
    match replay.deadline() {
        None => Ok(connection.next().await),
        Some(deadline) => match timeout_at(deadline, connection.next()).await {
            Ok(received) => Ok(received),
            Err(_) if replay.try_again() => Ok(Err(Broken::Lost("nothing came on it".to_owned()))),
            Err(_) => {
                Err(Gone::Lost("it is there again, but the kernel did not say what was missed".to_owned()))
            }
        },
    }
}

/// Opens a websocket to the kernel in a session with its gateway, of which so many messages have been received, and so much of
/// the next.
pub(super) async fn open_websocket(
    shared: &Shared,
    session_id: &str,
    (received, partial): (u64, usize),
    deadlines: Deadlines,
) -> Result<(Connection, Resumption)> {
    let endpoint = shared.gateway.endpoint();
    let kernel_id = shared.kernel_id();
    let target = Target {
        url: endpoint.channels(&kernel_id, session_id),
        authorization: endpoint.authorization(),
        secret_query: endpoint.secret_query(),
        tls: shared.gateway.tls(),
        proxy: shared.gateway.proxy().cloned(),
        kernel_id: kernel_id.as_ref().to_owned(),
        received,
        partial,
    };
    let limits = &shared.config.limits;
    channel::connect(
        &target,
        Keepalive { dead_after: shared.config.dead_peer_timeout },
        limits.output_bytes.max(limits.result_bytes).saturating_add(MESSAGE_OVERHEAD_BYTES),
        deadlines,
    )
    .await
}

/// How the gateway says that the kernel's process has ended: it answers no request, so it has no parent. Code in the
/// kernel can publish the same.
fn death_notice(message: &Message) -> Option<&'static str> {
    if !message.parent_id.is_empty() || message.header.msg_type != "status" {
        return None;
    }
    match Content::decode(message) {
        Content::Status { execution_state: ExecutionState::Restarting } => {
            Some("its process ended, and the gateway has started a new one")
        }
        Content::Status { execution_state: ExecutionState::Dead } => {
            Some("its process ended, and the gateway could not start a new one")
        }
        _ => None,
    }
}

pub(super) fn new_session_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
