//! One attempt: offered, accepted, relayed frame by frame, ended by its receipt, by a fault, or by a client that left.
//! The node is read as fast as it speaks; the client takes text as fast as it can; what waits for it is bounded by the
//! job's own output bound. Must not: charge.

use super::outgoing::{self, Address};
use super::transcript::{Mark, Piece, Spoken, Transcript};
use super::{Inbox, Incoming};
use crate::failover::{SeamFault, Sent};
use crate::gateway::until_raised;
use async_nats::Client;
use protocol::id::AccountId;
use protocol::job_message::{ACCEPT_MS_MAX, NakReason, ResultMessage};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Longest silence of a node that accepted: prefill of a long prompt included.
pub const SILENCE_MS_MAX: u64 = 120_000;
/// How long a cancelled node has to send its receipt.
pub const CANCEL_RECEIPT_MS_MAX: u64 = 10_000;
/// After so much silence it is looked whether the node is still there: its heartbeats, and whether anybody listens at its
/// subject; and again after the same time.
const LOOK_MS: u64 = 150;
/// When nobody listened it is looked once more after this: a node may be about to be connected again.
const LOOK_TWICE_MS: u64 = 50;

/// What the client's side is told.
#[derive(Debug)]
pub enum ToClient {
    /// A node took the job: the answer begins.
    Begun,
    /// Some text.
    Text(Spoken),
    /// Forget the text so far: another node answers from the beginning. Only to clients that get one whole object.
    Again,
    /// The answer is whole and charged.
    Finished(Box<crate::delivery::Finished>),
    /// It failed; nothing more comes.
    Failed(Box<crate::api::error::ApiError>),
}

/// Why no answer of this attempt can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens at the node's subject.
    NoResponders,
    /// Neither accepted nor refused in time.
    NotAnswered,
    /// Refused.
    Nak(NakReason),
    /// Heartbeats stopped, or nothing came for [`SILENCE_MS_MAX`].
    Vanished,
    /// The node said that it failed.
    Failed,
    /// A gap, a flood, a message that is none.
    Broken(String),
    /// The receipt does not stand.
    ReceiptInvalid(String),
    /// It made another answer than the node before it.
    Seam(SeamFault),
    /// The job's deadline passed.
    Late,
}

impl Fault {
    /// Whether it counts against the node; `account` is whose job it was. What a customer could bring about on purpose
    /// counts once a customer. Of two nodes that differ at a seam nobody knows yet which is wrong.
    pub fn report(&self, account: AccountId) -> crate::router::Report {
        use crate::router::Report;
        match self {
            Fault::Nak(NakReason::Busy) => Report::Busy,
            Fault::Nak(NakReason::Draining | NakReason::Unsupported) => Report::Neutral,
            Fault::Nak(NakReason::Model | NakReason::Body)
            | Fault::NoResponders
            | Fault::NotAnswered
            | Fault::Vanished
            | Fault::Broken(_)
            | Fault::ReceiptInvalid(_) => Report::Bad,
            Fault::Failed | Fault::Late => Report::BadFor(account),
            Fault::Seam(_) => Report::Neutral,
        }
    }

    /// A constant word for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Fault::NoResponders => "no_responders",
            Fault::NotAnswered => "not_answered",
            Fault::Nak(_) => "nak",
            Fault::Vanished => "vanished",
            Fault::Failed => "failed",
            Fault::Broken(_) => "broken",
            Fault::ReceiptInvalid(_) => "receipt_invalid",
            Fault::Seam(_) => "seam",
            Fault::Late => "late",
        }
    }
}

/// Why the gateway ended the answer before the node did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// A stop text came.
    Stop,
    /// The client left, or was too slow for the deadline.
    ClientGone,
    /// This coordinator is stopping.
    Shutdown,
}

/// An answer with its receipt, not yet judged.
pub struct Answered {
    /// Signed receipt, as it came.
    pub receipt: Vec<u8>,
    /// The last frame end that reached the client whole.
    pub delivered: Option<Mark>,
    /// Whether any text reached the client.
    pub any_text: bool,
    /// Whether the gateway ended it.
    pub cut: Option<Cut>,
}

/// How an attempt ended.
pub enum End {
    /// With a receipt.
    Answered(Answered),
    /// Cut, and no receipt came in time.
    NoReceipt(Cut),
    /// By a fault.
    Fault(Fault),
}

/// What an attempt works with.
pub struct Attempt<'a> {
    /// Where its node is.
    pub address: Address,
    /// Messages of the node.
    pub inbox: Inbox,
    /// Token of this gateway.
    pub gateway: &'a str,
    /// To send a cancel.
    pub nats: &'a Client,
    /// How often that was connected when the attempt began.
    pub connects: u64,
    /// The client's side.
    pub client: &'a mpsc::Sender<ToClient>,
    /// `true` when this coordinator stops.
    pub stopping: watch::Receiver<bool>,
    /// When the job must have ended.
    pub deadline: Instant,
    /// Whether the node's heartbeats come.
    pub is_alive: &'a (dyn Fn() -> bool + Send + Sync),
    /// Told of every frame end that reached the client.
    pub note_progress: &'a (dyn Fn(Mark) + Send + Sync),
    /// What of the answer is with the client, from this attempt and those before it.
    pub sent: &'a mut Sent,
    /// Judges a receipt when it comes, before the last text goes out; says what is wrong.
    pub judge: &'a (dyn Fn(Ended<'_>) -> Result<(), String> + Send + Sync),
}

/// The end that a node declares.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// Signed receipt.
    pub receipt: &'a [u8],
    /// Frames it says it sent.
    pub frames: u64,
    /// What came.
    pub transcript: &'a Transcript,
    /// Whether the gateway had ended it.
    pub cut: Option<Cut>,
}

/// How fast the node spoke, by what came.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pace {
    first: Option<(Instant, u64)>,
    last: Option<(Instant, u64)>,
}

impl Pace {
    /// So many tokens are here now.
    pub fn note(&mut self, tokens: u64) {
        let now = Instant::now();
        self.first = self.first.or(Some((now, tokens)));
        self.last = Some((now, tokens));
    }

    /// Tokens from the end of the first frame on, that end's one included, and the microseconds they took.
    pub fn tokens_and_us(self) -> Option<(u64, u64)> {
        let ((from, before), (until, all)) = (self.first?, self.last?);
        let took_us = u64::try_from((until - from).as_micros()).unwrap_or(u64::MAX);
        Some((all - before + 1, took_us))
    }
}

/// Text on its way to the client.
#[derive(Default)]
struct Waiting {
    spoken: Spoken,
    reaches: Option<Mark>,
}

impl Waiting {
    fn add(&mut self, piece: Piece) {
        self.spoken.text.push_str(&piece.text);
        self.spoken.logprobs.extend(piece.logprobs);
        self.reaches = piece.reaches.or(self.reaches);
    }

    fn is_empty(&self) -> bool {
        self.spoken.text.is_empty() && self.reaches.is_none()
    }
}

enum Wake {
    Node(Option<Incoming>),
    ClientReady,
    ClientGone,
    Shutdown,
    Timer,
    Look,
}

impl Attempt<'_> {
    /// Waits for the node's word on the offer.
    pub async fn accepted(&mut self) -> Result<(), Fault> {
        let until = self.deadline.min(Instant::now() + Duration::from_millis(ACCEPT_MS_MAX));
        let attempt = self.address.attempt;
        match tokio::time::timeout_at(until, self.inbox.next()).await {
            Err(_) => Err(Fault::NotAnswered),
            Ok(None) => Err(Fault::Broken("messages came faster than they could be taken".to_owned())),
            Ok(Some(Incoming::NoResponders)) => Err(Fault::NoResponders),
            Ok(Some(Incoming::Malformed)) => Err(Fault::Broken("not a message of the protocol".to_owned())),
            Ok(Some(Incoming::Message(message))) => match *message {
                ResultMessage::Accept { attempt: said } if said == attempt => Ok(()),
                ResultMessage::Nak { reason, .. } => Err(Fault::Nak(reason)),
                ResultMessage::Failed { .. } => Err(Fault::Failed),
                ResultMessage::Accept { .. } | ResultMessage::Frame(_) | ResultMessage::Done { .. } => {
                    Err(Fault::Broken("expected accept or nak first".to_owned()))
                }
            },
        }
    }

    /// Relays until the end. On a fault, `transcript` tells how far it came; what reached the client, [`Attempt::sent`].
    pub async fn relay(&mut self, transcript: &mut Transcript, pace: &mut Pace) -> End {
        let mut state = Relaying {
            waiting: Waiting::default(),
            receipt: None,
            cut: None,
            timer: self.next_timer(None),
            look_at: Instant::now() + Duration::from_millis(LOOK_MS),
            nobody: false,
        };
        loop {
            if let Some(end) = state.end_if_over(self.sent) {
                return end;
            }
            let wake = self.wake(&mut state).await;
            let fault = match wake {
                Wake::Node(Some(Incoming::NoResponders)) => self.on_nobody(&mut state),
                Wake::Node(incoming) => {
                    state.heard();
                    let fault = self.on_node(&mut state, incoming, transcript).await;
                    if state.cut.is_none() && !transcript.ids().is_empty() {
                        pace.note(transcript.ids().len() as u64);
                    }
                    fault
                }
                Wake::ClientReady if self.send_waiting(&mut state) => None,
                Wake::ClientReady | Wake::ClientGone => {
                    self.cut(&mut state, Cut::ClientGone).await;
                    None
                }
                Wake::Shutdown => {
                    self.cut(&mut state, Cut::Shutdown).await;
                    None
                }
                Wake::Timer => match self.on_timer(&mut state).await {
                    Ok(()) => None,
                    Err(end) => return end,
                },
                Wake::Look => self.look(&mut state).await,
            };
            if let Some(fault) = fault {
                outgoing::cancel(self.nats, &self.address).await;
                // A client that has left is not hurt by the node's fault, but there is no receipt to charge by.
                return End::Fault(fault);
            }
        }
    }

    async fn wake(&mut self, state: &mut Relaying) -> Wake {
        let to_client = state.cut.is_none_or(|cut| cut == Cut::Stop);
        let sending = to_client && !state.waiting.is_empty();
        let stopping = &mut self.stopping;
        tokio::select! {
            incoming = self.inbox.next(), if state.receipt.is_none() => Wake::Node(incoming),
            ready = self.client.reserve(), if sending => {
                // The permit is not kept: this task is the only sender, so the slot stays free.
                if ready.is_ok() { Wake::ClientReady } else { Wake::ClientGone }
            }
            () = self.client.closed(), if to_client => Wake::ClientGone,
            () = until_raised(stopping), if to_client => Wake::Shutdown,
            () = sleep_until(state.timer) => Wake::Timer,
            () = sleep_until(state.look_at), if state.receipt.is_none() => Wake::Look,
        }
    }

    async fn on_node(
        &mut self,
        state: &mut Relaying,
        incoming: Option<Incoming>,
        transcript: &mut Transcript,
    ) -> Option<Fault> {
        let message = match incoming {
            Some(Incoming::Message(message)) => *message,
            Some(Incoming::NoResponders) => return self.on_nobody(state),
            Some(Incoming::Malformed) => {
                return Some(Fault::Broken("not a message of the protocol".to_owned()));
            }
            None => return Some(Fault::Broken("messages came faster than they could be taken".to_owned())),
        };
        match message {
            ResultMessage::Frame(frame) => {
                let was_stopped = transcript.is_stopped();
                let piece = match transcript.push(&frame) {
                    Ok(piece) => self.sent.pass(piece, transcript),
                    Err(fault) => return Some(Fault::Broken(fault.to_string())),
                };
                match piece {
                    Ok(piece) => state.waiting.add(piece),
                    Err(fault) => return Some(Fault::Seam(fault)),
                }
                if state.cut.is_none() {
                    state.timer = self.next_timer(None);
                }
                if transcript.is_stopped() && !was_stopped && state.cut.is_none() {
                    self.cut(state, Cut::Stop).await;
                }
                None
            }
            ResultMessage::Done { seq, receipt } => {
                let Ok(receipt) = data_encoding::BASE64.decode(receipt.as_bytes()) else {
                    return Some(Fault::Broken("receipt is not base64".to_owned()));
                };
                let ended = Ended { receipt: &receipt, frames: seq, transcript, cut: state.cut };
                if let Err(reason) = (self.judge)(ended) {
                    return Some(Fault::ReceiptInvalid(reason));
                }
                let last = transcript.finish();
                match self.sent.pass(last, transcript).and_then(|piece| self.sent.is_through(piece)) {
                    Ok(piece) => state.waiting.add(piece),
                    Err(_) if state.cut.is_some_and(|cut| cut != Cut::Stop) => {}
                    Err(fault) => return Some(Fault::Seam(fault)),
                }
                state.receipt = Some(receipt);
                state.timer = self.deadline;
                None
            }
            ResultMessage::Failed { .. } => Some(Fault::Failed),
            ResultMessage::Accept { .. } | ResultMessage::Nak { .. } => {
                Some(Fault::Broken("accept or nak in the middle of an answer".to_owned()))
            }
        }
    }

    /// A silent node may be gone: its heartbeats tell after seconds, the server at once when its connection ended.
    async fn look(&mut self, state: &mut Relaying) -> Option<Fault> {
        if !(self.is_alive)() {
            return Some(Fault::Vanished);
        }
        state.look_at = Instant::now() + Duration::from_millis(LOOK_MS);
        outgoing::ask_for_anybody(self.nats, &self.address, self.gateway).await;
        None
    }

    /// Nobody listens at the node's subject. After a loss of our own connection that says nothing: the node may be about to
    /// be there again, and its heartbeats tell.
    fn on_nobody(&mut self, state: &mut Relaying) -> Option<Fault> {
        let connects = self.nats.statistics().connects.load(Ordering::Relaxed);
        if connects != self.connects || state.receipt.is_some() {
            return None;
        }
        if state.nobody {
            return Some(Fault::NoResponders);
        }
        state.nobody = true;
        state.look_at = Instant::now() + Duration::from_millis(LOOK_TWICE_MS);
        None
    }

    /// Sends what waits; `false` when the client has left in this very moment: then it was not delivered.
    fn send_waiting(&mut self, state: &mut Relaying) -> bool {
        let Waiting { spoken, reaches, .. } = std::mem::take(&mut state.waiting);
        if spoken.text.is_empty() {
            // Probabilities of tokens without text go with the next text.
            state.waiting.spoken = spoken;
        } else {
            let (text, probabilities) = (spoken.text.clone(), spoken.logprobs.len());
            if self.client.try_send(ToClient::Text(spoken)).is_err() {
                return false;
            }
            self.sent.note_text(&text, probabilities);
        }
        if let Some(mark) = reaches {
            self.sent.note_mark(mark);
            (self.note_progress)(mark);
        }
        true
    }

    async fn on_timer(&mut self, state: &mut Relaying) -> Result<(), End> {
        match (state.cut, state.receipt.is_some()) {
            // The client took too long to take a whole answer: it is charged what it took.
            (None | Some(Cut::Stop), true) => state.cut = Some(Cut::ClientGone),
            (Some(cut), false) => return Err(End::NoReceipt(cut)),
            (None, false) => {
                outgoing::cancel(self.nats, &self.address).await;
                let late = Instant::now() >= self.deadline;
                return Err(End::Fault(if late { Fault::Late } else { Fault::Vanished }));
            }
            (Some(_), true) => {}
        }
        Ok(())
    }

    /// The gateway ends the answer: the node is told, and has a moment for its receipt.
    async fn cut(&mut self, state: &mut Relaying, cut: Cut) {
        state.cut = Some(cut);
        if cut != Cut::Stop {
            state.waiting = Waiting::default();
        }
        if state.receipt.is_none() {
            state.timer = self.next_timer(Some(CANCEL_RECEIPT_MS_MAX));
            outgoing::cancel(self.nats, &self.address).await;
        }
    }

    fn next_timer(&self, wait_ms: Option<u64>) -> Instant {
        self.deadline.min(Instant::now() + Duration::from_millis(wait_ms.unwrap_or(SILENCE_MS_MAX)))
    }
}

struct Relaying {
    waiting: Waiting,
    receipt: Option<Vec<u8>>,
    cut: Option<Cut>,
    timer: Instant,
    /// When it is looked whether the node is still there.
    look_at: Instant,
    /// Whether nobody listened at the last look.
    nobody: bool,
}

impl Relaying {
    fn heard(&mut self) {
        self.nobody = false;
        self.look_at = Instant::now() + Duration::from_millis(LOOK_MS);
    }

    /// Over when the receipt is here and nothing waits for the client any more.
    fn end_if_over(&mut self, sent: &Sent) -> Option<End> {
        let client_wants = self.cut.is_none_or(|cut| cut == Cut::Stop);
        if client_wants && !self.waiting.is_empty() {
            return None;
        }
        let receipt = self.receipt.take()?;
        let (delivered, any_text) = (sent.mark(), sent.any_text());
        Some(End::Answered(Answered { receipt, delivered, any_text, cut: self.cut }))
    }
}
