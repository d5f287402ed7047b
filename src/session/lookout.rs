//! Looks after the kernel while it says nothing.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::inquiry::Finding;

/// How often the silence is looked at: nothing is timed for each message.
const TICK: Duration = Duration::from_millis(500);

/// After how many ticks without a message the gateway and the kernel are asked, at first and at most: 3 s and 10 s.
const FIRST_LOOK: u32 = 6;
const LONGEST_LOOK: u32 = 20;

/// How many ticks the reply and the idle status may be apart until the kernel is asked: 1 s.
const HALF_LOOK: u32 = 2;

/// After how many ticks without a message nothing more is on its way from a kernel that has answered what comes after
/// the code: 2 s.
const SILENT: u32 = 4;

/// A question that is under way.
type Inquiry = Pin<Box<dyn Future<Output = Finding> + Send>>;

pub(super) struct Lookout {
    ticks: Interval,
    /// How many ticks in a row nothing of the execution was heard.
    quiet: u32,
    /// At how many of them to look next.
    look_at: u32,
    /// For how many ticks the reply has been there without the idle status, or that without the reply.
    half: u32,
    inquiry: Option<Inquiry>,
}

/// What there is to do.
pub(super) enum Sight {
    Tick,
    Found(Finding),
}

impl Lookout {
    pub(super) fn new() -> Self {
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, quiet: 0, look_at: FIRST_LOOK, half: 0, inquiry: None }
    }

    /// Notes that something of the execution has come.
    pub(super) fn heard(&mut self) {
        (self.quiet, self.look_at) = (0, FIRST_LOOK);
    }

    /// Waits for an answer, with one question at a time.
    pub(super) fn ask(&mut self, inquiry: impl Future<Output = Finding> + Send + 'static) {
        self.inquiry.get_or_insert_with(|| Box::pin(inquiry));
    }

    /// Asks, in the place of whatever was asked before.
    pub(super) fn ask_instead(&mut self, inquiry: impl Future<Output = Finding> + Send + 'static) {
        self.inquiry = Some(Box::pin(inquiry));
    }

    /// The next tick or the answer to a question. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Sight {
        let answer = async {
            match &mut self.inquiry {
                Some(inquiry) => inquiry.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            finding = answer => {
                self.inquiry = None;
                Sight::Found(finding)
            }
            _ = self.ticks.tick() => Sight::Tick,
        }
    }

    /// Counts a tick; whether it is time to ask. `is_half`: only the reply or only the idle status is there.
    pub(super) fn is_due(&mut self, is_half: bool) -> bool {
        self.quiet = self.quiet.saturating_add(1);
        self.half = if is_half { self.half.saturating_add(1) } else { 0 };
        if self.quiet >= self.look_at {
            self.look_at += self.look_at.min(LONGEST_LOOK);
            return true;
        }
        self.half == HALF_LOOK
    }

    /// Whether nothing has come for so long that nothing is on its way.
    pub(super) fn is_silent(&self) -> bool {
        self.quiet >= SILENT
    }
}
