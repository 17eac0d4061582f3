//! What one attempt said, as the gateway saw it: ids in order, the digest chain at each frame's end, stop texts, and how
//! much of it may go out. Pure. Must not: believe the worker's text or counts.

use protocol::id::Hash32;
use protocol::job_message::{Frame, TokenLogprobs};

/// Most ids in one frame.
pub const FRAME_IDS_MAX: usize = 1_024;
/// Frames without ids (a worker's last piece of text) that one answer may have.
pub const EMPTY_FRAMES_MAX: u64 = 16;

/// Why a frame cannot follow the ones before it: the node's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// A frame is missing, doubled or out of order.
    #[error("frame {came} came where {expected} was due")]
    Gap {
        /// The next number.
        expected: u64,
        /// What came.
        came: u64,
    },
    /// More tokens than were asked for.
    #[error("{came} output tokens; the job allows {max}")]
    TooMany {
        /// So many there would be.
        came: u64,
        /// The job's bound.
        max: u64,
    },
    /// More than [`FRAME_IDS_MAX`] ids.
    #[error("a frame of {0} ids; at most {FRAME_IDS_MAX} are allowed")]
    Size(usize),
    /// More than [`EMPTY_FRAMES_MAX`] frames without ids.
    #[error("more than {EMPTY_FRAMES_MAX} frames without ids")]
    Empty,
    /// Log-probabilities that are not one entry an id.
    #[error("{came} log-probabilities for {ids} ids; expected one for each, of the same id, or none")]
    Logprobs {
        /// Entries.
        came: usize,
        /// Ids of the frame.
        ids: usize,
    },
}

/// Turns ids into text, one at a time; text may lag behind the ids by part of a character.
pub trait Detokenise: Send + Sync {
    /// Text that the id completes.
    fn push(&mut self, id: u32) -> String;
    /// What is left at the end.
    fn finish(&mut self) -> String;
}

/// The end of a frame: so many tokens, this chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Output tokens so far.
    pub count: u64,
    /// Digest chain after them.
    pub chain: Hash32,
}

/// Text that may go out, and what is delivered once it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// May be empty: tokens without text count too.
    pub text: String,
    /// The frame end that is reached when it is out; `None` while part of the frame's text is held back.
    pub reaches: Option<Mark>,
    /// What the worker says about the probabilities of the tokens that came; text of theirs may follow later.
    pub logprobs: Vec<TokenLogprobs>,
}

/// Text on its way to a client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spoken {
    /// Never empty when it is sent.
    pub text: String,
    /// Of the tokens since the last text, where they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
}

impl Piece {
    fn nothing() -> Piece {
        Piece { text: String::new(), reaches: None, logprobs: Vec::new() }
    }
}

/// One attempt's answer.
pub struct Transcript {
    ids: Vec<u32>,
    marks: Vec<Mark>,
    frames: u64,
    empty_frames: u64,
    output_max: u64,
    detokeniser: Box<dyn Detokenise>,
    stops: Vec<String>,
    /// Text that could be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl Transcript {
    /// An empty answer of at most `output_max` tokens that ends at any of `stops`.
    pub fn new(detokeniser: Box<dyn Detokenise>, stops: Vec<String>, output_max: u64) -> Self {
        Transcript {
            ids: Vec::new(),
            marks: Vec::new(),
            frames: 0,
            empty_frames: 0,
            output_max,
            detokeniser,
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes the next frame. After a stop text it is only recorded, for the receipt's sake.
    ///
    /// # Errors
    /// [`FrameFault`]: the attempt is over, by the node's fault.
    pub fn push(&mut self, frame: &Frame) -> Result<Piece, FrameFault> {
        if frame.seq != self.frames {
            return Err(FrameFault::Gap { expected: self.frames, came: frame.seq });
        }
        if frame.ids.len() > FRAME_IDS_MAX {
            return Err(FrameFault::Size(frame.ids.len()));
        }
        if frame.ids.is_empty() {
            return self.push_empty();
        }
        let before = self.last_mark();
        let count = self.ids.len() as u64 + frame.ids.len() as u64;
        if count > self.output_max {
            return Err(FrameFault::TooMany { came: count, max: self.output_max });
        }
        let told = &frame.logprobs;
        if !told.is_empty() && !told.iter().map(|one| one.id).eq(frame.ids.iter().copied()) {
            return Err(FrameFault::Logprobs { came: told.len(), ids: frame.ids.len() });
        }
        self.frames += 1;
        self.ids.extend_from_slice(&frame.ids);
        let mark = Mark { count, chain: frame.chain };
        self.marks.push(mark);
        if self.stopped {
            return Ok(Piece::nothing());
        }
        for (at, id) in frame.ids.iter().enumerate() {
            self.held.push_str(&self.detokeniser.push(*id));
            if let Some(text) = self.cut_at_stop() {
                // Tokens are charged up to a frame's end, because only there the chain is known: with the stop inside a
                // frame, up to the frame before.
                let reaches = if at + 1 == frame.ids.len() { Some(mark) } else { before };
                let logprobs = told.iter().take(at + 1).cloned().collect();
                return Ok(Piece { text, reaches, logprobs });
            }
        }
        let text = self.release();
        let reaches = self.held.is_empty().then_some(mark);
        Ok(Piece { text, reaches, logprobs: told.clone() })
    }

    /// The answer ended without a stop text: everything held back may go out.
    pub fn finish(&mut self) -> Piece {
        if self.stopped {
            return Piece::nothing();
        }
        self.held.push_str(&self.detokeniser.finish());
        let text = self.cut_at_stop().unwrap_or_else(|| std::mem::take(&mut self.held));
        Piece { text, reaches: self.last_mark(), logprobs: Vec::new() }
    }

    /// Whether a stop text came.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Every id that came, in order.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Every frame end, in order.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Frames that came.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The chain at a frame's end, if a frame ended at `count`.
    pub fn chain_at(&self, count: u64) -> Option<Hash32> {
        self.marks.binary_search_by_key(&count, |m| m.count).ok().map(|at| self.marks[at].chain)
    }

    /// The last frame's end.
    pub fn last_mark(&self) -> Option<Mark> {
        self.marks.last().copied()
    }

    /// A frame that only carries the worker's own text, which is not used here.
    fn push_empty(&mut self) -> Result<Piece, FrameFault> {
        self.frames += 1;
        self.empty_frames += 1;
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(FrameFault::Empty);
        }
        Ok(Piece::nothing())
    }

    fn cut_at_stop(&mut self) -> Option<String> {
        let at = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min()?;
        self.stopped = true;
        self.held.truncate(at);
        Some(std::mem::take(&mut self.held))
    }

    /// Everything but the longest end that a stop text begins with.
    fn release(&mut self) -> String {
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    (1..=longest)
        .rev()
        .find(|n| {
            let at = text.len() - n;
            text.is_char_boundary(at) && stop.as_bytes().starts_with(&text.as_bytes()[at..])
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids are characters.
    struct Letters;

    impl Detokenise for Letters {
        fn push(&mut self, id: u32) -> String {
            char::from_u32(id).map(String::from).unwrap_or_default()
        }
        fn finish(&mut self) -> String {
            String::new()
        }
    }

    fn frame(seq: u64, text: &str) -> Frame {
        Frame {
            seq,
            ids: text.chars().map(u32::from).collect(),
            text: "what the worker says".to_owned(),
            chain: Hash32([seq as u8; 32]),
            logprobs: vec![],
        }
    }

    fn transcript(stops: &[&str]) -> Transcript {
        Transcript::new(Box::new(Letters), stops.iter().map(|s| (*s).to_owned()).collect(), 100)
    }

    fn piece(text: &str, reaches: Option<Mark>) -> Piece {
        Piece { text: text.to_owned(), reaches, logprobs: vec![] }
    }

    fn mark(count: u64, seq: u8) -> Option<Mark> {
        Some(Mark { count, chain: Hash32([seq; 32]) })
    }

    #[test]
    fn text_comes_from_ids_and_every_frame_is_a_mark() {
        let mut t = transcript(&[]);
        assert_eq!(t.push(&frame(0, "ab")).unwrap(), piece("ab", mark(2, 0)));
        assert_eq!(t.push(&frame(1, "c")).unwrap(), piece("c", mark(3, 1)));
        assert_eq!((t.chain_at(2), t.chain_at(1)), (Some(Hash32([0; 32])), None));
        assert_eq!(t.ids(), [97, 98, 99]);
    }

    #[test]
    fn gaps_doubles_and_floods_are_faults() {
        let mut t = transcript(&[]);
        assert_eq!(t.push(&frame(1, "a")), Err(FrameFault::Gap { expected: 0, came: 1 }));
        t.push(&frame(0, "a")).unwrap();
        assert_eq!(t.push(&frame(0, "a")), Err(FrameFault::Gap { expected: 1, came: 0 }));
        let nothing = Piece::nothing();
        for seq in 1..=EMPTY_FRAMES_MAX {
            assert_eq!(t.push(&frame(seq, "")), Ok(nothing.clone()));
        }
        assert_eq!(t.push(&frame(17, "")), Err(FrameFault::Empty));
        let many = "x".repeat(100);
        assert_eq!(t.push(&frame(18, &many)), Err(FrameFault::TooMany { came: 101, max: 100 }));
    }

    #[test]
    fn a_stop_text_over_several_frames_is_held_back_and_cut() {
        let mut t = transcript(&["END", "\n\n"]);
        assert_eq!(t.push(&frame(0, "aE")).unwrap(), piece("a", None));
        assert_eq!(t.push(&frame(1, "N")).unwrap(), piece("", None));
        assert_eq!(t.push(&frame(2, "x")).unwrap(), piece("ENx", mark(4, 2)));
        t.push(&frame(3, "E")).unwrap();
        t.push(&frame(4, "N")).unwrap();
        assert_eq!(t.push(&frame(5, "D")).unwrap(), piece("", mark(7, 5)));
        assert!(t.is_stopped());
        assert_eq!(t.push(&frame(6, "more")).unwrap(), piece("", None));
        assert_eq!(t.finish(), piece("", None));
        assert_eq!(t.ids().len(), 11, "recorded for the receipt");
    }

    #[test]
    fn a_stop_inside_a_frame_charges_up_to_the_frame_before() {
        let mut t = transcript(&["."]);
        t.push(&frame(0, "ab")).unwrap();
        assert_eq!(t.push(&frame(1, "c.d")).unwrap(), piece("c", mark(2, 0)));
    }

    #[test]
    fn what_only_looked_like_a_stop_goes_out_at_the_end() {
        let mut t = transcript(&["END"]);
        assert_eq!(t.push(&frame(0, "xEN")).unwrap().text, "x");
        assert_eq!(t.finish(), piece("EN", mark(3, 0)));
    }

    #[test]
    fn overlap_respects_characters() {
        assert_eq!(overlap("aé", "éb"), 2);
        assert_eq!(overlap("ab", "ab"), 0, "the whole stop is no overlap: it was looked for before");
        assert_eq!(overlap("xaba", "abab"), 3);
        assert_eq!(overlap("", "a"), 0);
    }

    #[test]
    fn probabilities_go_with_their_tokens_and_stop_where_the_text_does() {
        let told = |text: &str| -> Vec<TokenLogprobs> {
            text.chars().map(|c| TokenLogprobs { id: u32::from(c), millionths: -1, top: vec![] }).collect()
        };
        let mut t = transcript(&["x"]);
        let first = Frame { logprobs: told("ab"), ..frame(0, "ab") };
        assert_eq!(t.push(&first).unwrap().logprobs, told("ab"));
        let stopped = Frame { logprobs: told("cxd"), ..frame(1, "cxd") };
        assert_eq!(t.push(&stopped).unwrap().logprobs, told("cx"));
        for wrong in [told("a"), told("ba")] {
            let frame = Frame { logprobs: wrong, ..frame(0, "ab") };
            assert!(matches!(transcript(&[]).push(&frame), Err(FrameFault::Logprobs { .. })));
        }
    }
}
