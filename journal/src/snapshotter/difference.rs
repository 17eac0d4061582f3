//! Where two states, written as CBOR, first differ: named by its place in the structure, for people. Must not: judge.

use minicbor::data::Token;
use minicbor::decode::Tokenizer;

/// How deep a place is named.
const DEPTH_MAX: usize = 64;

/// An open array or map: what is left in it (`None`: until its end mark), and how many items were passed.
struct Level {
    left: Option<u64>,
    passed: u64,
}

/// `None` when the bytes are the same; else the place and what stands there in each.
pub(super) fn first_difference(stored: &[u8], rebuilt: &[u8]) -> Option<String> {
    if stored == rebuilt {
        return None;
    }
    let at = stored.iter().zip(rebuilt).position(|(a, b)| a != b).unwrap_or(stored.len().min(rebuilt.len()));
    let mut levels: Vec<Level> = Vec::new();
    for (ours, theirs) in Tokenizer::new(stored).zip(Tokenizer::new(rebuilt)) {
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { break };
        if ours != theirs {
            let place: Vec<_> = levels.iter().map(|level| level.passed.to_string()).collect();
            let place = if place.is_empty() { "the top".to_owned() } else { place.join("/") };
            return Some(format!(
                "at {place} (byte {at}): the snapshot has {ours}, the rebuilt state {theirs}"
            ));
        }
        step(&mut levels, &ours);
    }
    Some(format!(
        "at byte {at}: the snapshot has {} bytes, the rebuilt state {}",
        stored.len(),
        rebuilt.len()
    ))
}

/// Moves over one token.
fn step(levels: &mut Vec<Level>, token: &Token<'_>) {
    let opened = match token {
        Token::Array(count) => Some(Some(*count)),
        Token::Map(pairs) => Some(Some(pairs * 2)),
        Token::BeginArray | Token::BeginMap => Some(None),
        Token::Tag(_) => return,
        Token::Break => {
            levels.pop();
            None
        }
        _ => None,
    };
    match opened {
        Some(left) if left != Some(0) && levels.len() < DEPTH_MAX => {
            levels.push(Level { left, passed: 0 });
            return;
        }
        _ => {}
    }
    while let Some(level) = levels.last_mut() {
        level.passed += 1;
        match &mut level.left {
            Some(left) => *left -= 1,
            None => return,
        }
        if level.left != Some(0) {
            return;
        }
        levels.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        let stored = minicbor::to_vec((1, vec![10, 20, 30], "end")).unwrap();
        assert_eq!(first_difference(&stored, &stored), None);
        let other = minicbor::to_vec((1, vec![10, 21, 30], "end")).unwrap();
        let text = first_difference(&stored, &other).unwrap();
        assert!(text.starts_with("at 1/1 (byte") && text.contains("20") && text.contains("21"), "{text}");
        let text = first_difference(&stored, &stored[..stored.len() - 1]).unwrap();
        assert!(text.contains("bytes"), "{text}");
        let longer = minicbor::to_vec((1, vec![10, 20, 30, 40], "end")).unwrap();
        let text = first_difference(&stored, &longer).unwrap();
        assert!(text.starts_with("at 1 "), "{text}");
        let last = minicbor::to_vec((1, vec![10, 20, 30], "eNd")).unwrap();
        assert!(first_difference(&stored, &last).unwrap().starts_with("at 2 "));
    }
}
