//! Stop texts: finds the first in the stream, and holds back text that may become one. Pure.

/// What may be shown of the text pushed so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Text that certainly lies before any stop text.
    pub(crate) text: String,
    /// A stop text is complete; nothing after it counts.
    pub(crate) stopped: bool,
}

/// A running search for several texts.
pub(crate) struct StopScan {
    stops: Vec<String>,
    /// Always a proper prefix of a stop text, hence shorter than the longest.
    held: String,
}

impl StopScan {
    /// Empty stop texts are ignored.
    pub(crate) fn new(stops: &[String]) -> StopScan {
        StopScan { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// More text of the stream.
    pub(crate) fn push(&mut self, text: &str) -> Scanned {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Scanned { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep =
            self.held.char_indices().map(|(at, _)| at).find(|at| self.may_become_stop(&self.held[*at..]));
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        Scanned { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The stream ended: what was held back is ordinary text.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn may_become_stop(&self, tail: &str) -> bool {
        self.stops.iter().any(|stop| stop.starts_with(tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&str], shown: &[&str], stopped: bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut scan = StopScan::new(&stops);
        let mut out = Vec::new();
        let mut done = false;
        for piece in pieces {
            let scanned = scan.push(piece);
            out.push(scanned.text);
            done = scanned.stopped;
            if done {
                break;
            }
        }
        if !done {
            out.push(scan.finish());
        }
        assert_eq!(
            (out.as_slice(), done),
            (shown.iter().map(|s| s.to_string()).collect::<Vec<_>>().as_slice(), stopped)
        );
    }

    #[test]
    fn stops_are_cut_wherever_the_tokens_split_them() {
        check(&["END"], &["abc", "E", "N", "D", "x"], &["abc", "", "", ""], true);
        check(&["END"], &["aENDb"], &["a"], true);
        check(&["END"], &["aE", "x"], &["a", "Ex", ""], false);
        check(&["END"], &["aEN"], &["a", "EN"], false);
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(&["\n\n", "."], &["x\n", "y."], &["x", "\ny"], true);
        check(&["日本"], &["a日", "本"], &["a", ""], true);
        check(&["", "z"], &["abc"], &["abc", ""], false);
        check(&[], &["abc"], &["abc", ""], false);
    }
}
