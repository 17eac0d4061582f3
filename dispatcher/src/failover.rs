//! The seam of an answer that another node goes on with. The next node makes the answer again from its beginning, with the
//! same prompt, parameters and sampling key; what is with the client already is compared and not sent twice: every token, the
//! digest chain at every count where both ended a frame, and the text. Pure. Must not: choose nodes, charge.

use crate::relay::transcript::{Mark, Piece, Transcript};

/// Why an answer cannot be gone on with: two nodes gave different answers where only one is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeamFault {
    /// Another token.
    #[error("token {at} is {came}; the node before sent {sent}")]
    Token {
        /// Its place, from 0.
        at: usize,
        /// The new node's.
        came: u32,
        /// The earlier node's.
        sent: u32,
    },
    /// The same tokens from another computation.
    #[error("the digest chain after {count} tokens is not the one of the node before")]
    Chain {
        /// Where.
        count: u64,
    },
    /// Another text.
    #[error("the text differs after {bytes} bytes that the client has")]
    Text {
        /// Where.
        bytes: usize,
    },
}

/// What of an answer is with the client, whichever nodes made it.
#[derive(Debug, Default)]
pub struct Sent {
    text: String,
    /// The last frame end that the client has whole.
    mark: Option<Mark>,
    /// Tokens and frame ends of the node that came furthest before this attempt.
    expected_ids: Vec<u32>,
    expected_marks: Vec<Mark>,
    /// How much of them this attempt was compared with.
    compared_ids: usize,
    compared_marks: usize,
    /// Bytes of the text that this attempt has repeated.
    repeated: usize,
    /// Tokens whose probabilities the client has, and those that came in this attempt.
    probabilities: usize,
    probabilities_came: usize,
}

impl Sent {
    /// Whether the client has any text.
    pub fn any_text(&self) -> bool {
        !self.text.is_empty()
    }

    /// The last frame end that the client has whole.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Output tokens that the client has whole.
    pub fn count(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.count)
    }

    /// An attempt came so far and no further: the next one begins anew and is compared with it.
    pub fn broke_off(&mut self, transcript: &Transcript) {
        if transcript.ids().len() > self.expected_ids.len() {
            self.expected_ids = transcript.ids().to_vec();
            self.expected_marks = transcript.marks().to_vec();
        }
        (self.compared_ids, self.compared_marks, self.repeated) = (0, 0, 0);
        self.probabilities_came = 0;
    }

    /// The client forgets the text: the next attempt is compared with nothing.
    pub fn forget(&mut self) {
        *self = Sent::default();
    }

    /// What of a new piece goes out: nothing of what the client has already.
    ///
    /// # Errors
    /// [`SeamFault`]: this is another answer.
    pub fn pass(&mut self, mut piece: Piece, transcript: &Transcript) -> Result<Piece, SeamFault> {
        self.compare(transcript)?;
        let had = &self.text.as_bytes()[self.repeated..];
        let came = piece.text.as_bytes();
        let both = had.len().min(came.len());
        if let Some(differs) = (0..both).find(|at| had[*at] != came[*at]) {
            return Err(SeamFault::Text { bytes: self.repeated + differs });
        }
        self.repeated += both;
        piece.text.drain(..both);
        let known = self.probabilities.saturating_sub(self.probabilities_came).min(piece.logprobs.len());
        self.probabilities_came += piece.logprobs.len();
        piece.logprobs.drain(..known);
        let is_through = self.repeated == self.text.len();
        piece.reaches = piece.reaches.filter(|mark| is_through && mark.count >= self.count());
        Ok(piece)
    }

    /// The answer ended with this piece: it must not end before what the client has.
    ///
    /// # Errors
    /// [`SeamFault::Text`]
    pub fn is_through(&self, last: Piece) -> Result<Piece, SeamFault> {
        match self.repeated == self.text.len() {
            true => Ok(last),
            false => Err(SeamFault::Text { bytes: self.repeated }),
        }
    }

    /// Text is with the client, and probabilities of so many tokens.
    pub fn note_text(&mut self, text: &str, probabilities: usize) {
        self.text.push_str(text);
        self.repeated += text.len();
        self.probabilities += probabilities;
    }

    /// A frame end is.
    pub fn note_mark(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    fn compare(&mut self, transcript: &Transcript) -> Result<(), SeamFault> {
        let ids = transcript.ids();
        let until = ids.len().min(self.expected_ids.len());
        let both = ids.iter().zip(&self.expected_ids).enumerate().take(until).skip(self.compared_ids);
        for (at, (&came, &sent)) in both {
            if came != sent {
                return Err(SeamFault::Token { at, came, sent });
            }
        }
        self.compared_ids = self.compared_ids.max(until);
        for mark in &transcript.marks()[self.compared_marks..] {
            let same_end = self.expected_marks.binary_search_by_key(&mark.count, |m| m.count);
            if same_end.is_ok_and(|at| self.expected_marks[at].chain != mark.chain) {
                return Err(SeamFault::Chain { count: mark.count });
            }
        }
        self.compared_marks = transcript.marks().len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::transcript::Detokenise;
    use protocol::id::Hash32;
    use protocol::job_message::Frame;

    struct Letters;
    impl Detokenise for Letters {
        fn push(&mut self, id: u32) -> String {
            char::from_u32(id).map(String::from).unwrap_or_default()
        }
        fn finish(&mut self) -> String {
            String::new()
        }
    }

    /// Plays frames; gives what goes out to the client.
    fn play(sent: &mut Sent, frames: &[&str], salt: u8) -> (Transcript, Result<Vec<String>, SeamFault>) {
        let mut transcript = Transcript::new(Box::new(Letters), Vec::new(), 100);
        let mut out = Vec::new();
        let mut count = 0;
        for (seq, text) in frames.iter().enumerate() {
            count += text.len() as u8;
            let ids = text.chars().map(u32::from).collect();
            let chain = Hash32([count ^ salt; 32]);
            let frame = Frame { seq: seq as u64, ids, text: String::new(), chain, logprobs: Vec::new() };
            let piece = transcript.push(&frame).unwrap();
            let piece = match sent.pass(piece, &transcript) {
                Ok(piece) => piece,
                Err(fault) => return (transcript, Err(fault)),
            };
            sent.note_text(&piece.text, piece.logprobs.len());
            piece.reaches.into_iter().for_each(|mark| sent.note_mark(mark));
            out.push(piece.text);
        }
        (transcript, Ok(out))
    }

    fn after(frames: &[&str]) -> Sent {
        let mut sent = Sent::default();
        let (transcript, played) = play(&mut sent, frames, 0);
        assert_eq!(played.unwrap().concat(), frames.concat());
        sent.broke_off(&transcript);
        sent
    }

    #[test]
    fn the_next_node_goes_on_where_the_client_is_whatever_its_frames() {
        let mut sent = after(&["He", "llo", " wor"]);
        assert_eq!(sent.count(), 9);
        let (_, played) = play(&mut sent, &["H", "ello w", "orl", "d!"], 0);
        assert_eq!(played.unwrap(), ["", "", "l", "d!"]);
        assert_eq!((sent.text.as_str(), sent.count()), ("Hello world!", 12));
    }

    #[test]
    fn while_it_repeats_nothing_counts_as_delivered_anew() {
        let mut sent = after(&["Hello"]);
        play(&mut sent, &["Hel"], 0).1.unwrap();
        assert_eq!(sent.count(), 5);
    }

    #[test]
    fn a_third_node_is_compared_with_the_one_that_came_furthest() {
        let mut sent = after(&["Hello"]);
        let (second, played) = play(&mut sent, &["He"], 0);
        played.unwrap();
        sent.broke_off(&second);
        let (_, played) = play(&mut sent, &["Help"], 0);
        assert_eq!(played, Err(SeamFault::Token { at: 3, came: 'p'.into(), sent: 'l'.into() }));
    }

    #[test]
    fn the_same_tokens_of_another_computation_are_found_at_a_common_frame_end() {
        let mut sent = after(&["He", "llo"]);
        assert_eq!(play(&mut sent, &["Hel", "lo"], 1).1, Err(SeamFault::Chain { count: 5 }));
        let mut sent = after(&["He", "llo"]);
        assert_eq!(play(&mut sent, &["Hel", "lo!"], 0).1.unwrap(), ["", "!"]);
    }

    #[test]
    fn text_that_differs_is_never_sent() {
        let mut sent = after(&["Hello"]);
        sent.expected_ids.clear();
        let (_, played) = play(&mut sent, &["Hey"], 0);
        assert_eq!(played, Err(SeamFault::Text { bytes: 2 }));
    }

    #[test]
    fn who_forgets_is_compared_with_nothing() {
        let mut sent = after(&["Hello"]);
        sent.forget();
        assert_eq!(play(&mut sent, &["Hey"], 0).1.unwrap(), ["Hey"]);
    }
}
