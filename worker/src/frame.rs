//! How tokens become frames: the first at once, then at most [`FRAME_TOKENS_MAX`] tokens or [`FRAME_WAIT_MS_MAX`]
//! together. Pure: time is an argument.

use protocol::id::Hash32;
use protocol::job_message::{Frame, TokenLogprobs};
use std::time::{Duration, Instant};

/// Most tokens in one frame.
pub(crate) const FRAME_TOKENS_MAX: usize = 8;
/// Longest a token waits for company.
pub(crate) const FRAME_WAIT_MS_MAX: u64 = 20;

/// Collects tokens into frames with contiguous sequence numbers.
pub(crate) struct FrameBatcher {
    frame_count: u64,
    ids: Vec<u32>,
    text: String,
    chain: Hash32,
    logprobs: Vec<TokenLogprobs>,
    waiting_since: Option<Instant>,
}

impl FrameBatcher {
    pub(crate) fn new() -> FrameBatcher {
        FrameBatcher {
            frame_count: 0,
            ids: Vec::with_capacity(FRAME_TOKENS_MAX),
            text: String::new(),
            chain: Hash32([0; 32]),
            logprobs: Vec::new(),
            waiting_since: None,
        }
    }

    /// Frames made so far: the sequence number of the next one.
    pub(crate) fn frame_count(&self) -> u64 {
        self.frame_count
    }

    /// When the waiting tokens must leave; `None` when none wait.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + Duration::from_millis(FRAME_WAIT_MS_MAX))
    }

    /// Adds one token. Returns a frame when it must leave now.
    pub(crate) fn push(&mut self, id: u32, text: &str, chain: Hash32, now: Instant) -> Option<Frame> {
        self.ids.push(id);
        self.text.push_str(text);
        self.chain = chain;
        let since = *self.waiting_since.get_or_insert(now);
        let waited_long = now.saturating_duration_since(since) >= Duration::from_millis(FRAME_WAIT_MS_MAX);
        if self.frame_count == 0 || self.ids.len() >= FRAME_TOKENS_MAX || waited_long {
            self.flush()
        } else {
            None
        }
    }

    /// Adds what is known of the next token's probabilities; to be called before its [`FrameBatcher::push`].
    pub(crate) fn push_logprobs(&mut self, logprobs: Option<TokenLogprobs>) {
        self.logprobs.extend(logprobs);
    }

    /// Adds text of tokens that left already (it was held back as the possible beginning of a stop text).
    pub(crate) fn push_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// What waits, as a frame. Its `ids` are empty when only held-back text was left.
    pub(crate) fn flush(&mut self) -> Option<Frame> {
        self.waiting_since = None;
        if self.ids.is_empty() && self.text.is_empty() {
            return None;
        }
        let seq = self.frame_count;
        self.frame_count += 1;
        let (ids, text) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.text));
        let logprobs = std::mem::take(&mut self.logprobs);
        Some(Frame { seq, ids, text, chain: self.chain, logprobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: u32) -> Hash32 {
        Hash32([n as u8; 32])
    }

    #[test]
    fn the_first_token_leaves_at_once_and_then_eight_together() {
        let (mut batcher, now) = (FrameBatcher::new(), Instant::now());
        let first = batcher.push(1, "a", chain(1), now).expect("first at once");
        assert_eq!((first.seq, first.ids, first.text, first.chain), (0, vec![1], "a".into(), chain(1)));
        for id in 2..9 {
            assert_eq!(batcher.push(id, "b", chain(id), now), None, "token {id} waits");
        }
        let second = batcher.push(9, "c", chain(9), now).expect("the eighth fills the frame");
        assert_eq!((second.seq, second.ids, second.chain), (1, (2..10).collect(), chain(9)));
        assert_eq!(second.text, "bbbbbbbc");
        assert_eq!((batcher.flush(), batcher.frame_count(), batcher.due()), (None, 2, None));
    }

    #[test]
    fn nobody_waits_longer_than_the_bound() {
        let (mut batcher, start) = (FrameBatcher::new(), Instant::now());
        batcher.push(1, "", chain(1), start);
        assert_eq!(batcher.due(), None);
        batcher.push(2, "", chain(2), start);
        // The bound counts from the oldest token, not from the newest.
        batcher.push(3, "", chain(3), start + Duration::from_millis(15));
        let bound = Duration::from_millis(FRAME_WAIT_MS_MAX);
        assert_eq!(batcher.due(), Some(start + bound));
        let late = batcher.push(4, "", chain(4), start + bound).expect("the oldest waited long enough");
        assert_eq!(late.ids, [2, 3, 4]);
    }

    #[test]
    fn held_back_text_leaves_even_without_tokens() {
        let (mut batcher, now) = (FrameBatcher::new(), Instant::now());
        batcher.push(1, "", chain(1), now);
        batcher.push_text("EN");
        let last = batcher.flush().expect("text is left");
        assert_eq!((last.seq, last.ids.len(), last.text.as_str(), last.chain), (1, 0, "EN", chain(1)));
    }
}
