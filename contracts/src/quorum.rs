//! Several nodes asked as one: an answer counts when enough of them give the same. A node that lags, lies, drops logs or
//! has moved to another chain is outvoted; without enough agreement nothing is believed, and the next poll asks again.

use futures::future::join_all;

use crate::chain::Head;
use crate::error::ChainError;
use crate::event::ChainEvent;
use crate::reader::ChainReader;

/// Nodes asked at once.
pub const READERS_MAX: usize = 16;

/// Readers of one chain through different nodes.
#[derive(Debug, Clone)]
pub struct QuorumReader<R> {
    readers: Vec<R>,
    quorum: usize,
}

impl<R: ChainReader> QuorumReader<R> {
    /// `quorum` of the readers must agree: more than half of them, so that two answers cannot both count.
    pub fn new(readers: Vec<R>, quorum: usize) -> Result<Self, ChainError> {
        let reader_count = readers.len();
        if reader_count > READERS_MAX || quorum == 0 || quorum > reader_count || quorum * 2 <= reader_count {
            return Err(ChainError::BadQuorum { quorum, reader_count });
        }
        Ok(Self { readers, quorum })
    }

    fn agreed<T: PartialEq>(
        &self,
        what: &'static str,
        answers: Vec<Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let mut most = 0;
        let mut last_error = None;
        let mut candidates: Vec<(T, usize)> = Vec::new();
        for answer in answers {
            match answer {
                Ok(answer) => match candidates.iter_mut().find(|(known, _)| *known == answer) {
                    Some((_, count)) => *count += 1,
                    None => candidates.push((answer, 1)),
                },
                Err(error) => last_error = Some(error),
            }
        }
        for (answer, count) in candidates {
            if count >= self.quorum {
                return Ok(answer);
            }
            most = most.max(count);
        }
        // With one reader its own words say more than a count of votes.
        if let (1, Some(error)) = (self.readers.len(), &last_error) {
            return Err(error.clone());
        }
        let trouble = last_error.map_or("they differ".to_string(), |error| error.to_string());
        let (quorum, reader_count) = (self.quorum, self.readers.len());
        Err(ChainError::NoQuorum { what, agreed: most, quorum, reader_count, trouble })
    }
}

impl<R: ChainReader + Sync> ChainReader for QuorumReader<R> {
    /// The highest block that enough nodes have reached and name alike.
    async fn head(&self) -> Result<Head, ChainError> {
        let heads = join_all(self.readers.iter().map(R::head)).await;
        let mut numbers: Vec<u64> = heads.iter().flatten().map(|head| head.number).collect();
        numbers.sort_unstable_by(|one, two| two.cmp(one));
        let Some(number) = numbers.get(self.quorum - 1).copied() else {
            return self.agreed("the newest block", heads);
        };
        let head = self.block(number).await?;
        let (quorum, reader_count) = (self.quorum, self.readers.len());
        head.ok_or(ChainError::NoQuorum {
            what: "the newest block",
            agreed: 0,
            quorum,
            reader_count,
            trouble: format!("block {number} was there a moment ago"),
        })
    }

    async fn block(&self, number: u64) -> Result<Option<Head>, ChainError> {
        self.agreed("a block", join_all(self.readers.iter().map(|reader| reader.block(number))).await)
    }

    async fn events(&self, from: u64, to: u64) -> Result<Vec<ChainEvent>, ChainError> {
        let answers = join_all(self.readers.iter().map(|reader| reader.events(from, to))).await;
        self.agreed("the events of a range", answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed_bytes::Hash32;

    /// A node with blocks up to `newest`; `fork` makes its hashes differ, `dead` makes it fail.
    struct Node {
        newest: u64,
        fork: u8,
        dead: bool,
    }

    impl Node {
        fn at(&self, number: u64) -> Head {
            Head { number, hash: Hash32([self.fork; 32]), timestamp: number }
        }
    }

    impl ChainReader for Node {
        async fn head(&self) -> Result<Head, ChainError> {
            match self.dead {
                true => {
                    Err(ChainError::Rpc { endpoint: "dead".into(), call: "head", cause: "refused".into() })
                }
                false => Ok(self.at(self.newest)),
            }
        }

        async fn block(&self, number: u64) -> Result<Option<Head>, ChainError> {
            self.head().await.map(|_| (number <= self.newest).then(|| self.at(number)))
        }

        async fn events(&self, _: u64, _: u64) -> Result<Vec<ChainEvent>, ChainError> {
            self.head().await.map(|_| Vec::new())
        }
    }

    async fn head_of(nodes: &[(u64, u8, bool)], quorum: usize) -> Result<(u64, u8), &'static str> {
        let node = |&(newest, fork, dead): &(u64, u8, bool)| Node { newest, fork, dead };
        let reader = QuorumReader::new(nodes.iter().map(node).collect(), quorum);
        let reader = reader.map_err(|error| error.code())?;
        reader.head().await.map(|head| (head.number, head.hash.0[0])).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn the_majority_is_believed_and_nobody_else() {
        let (honest, ahead, fork, dead) = ((10, 1, false), (12, 1, false), (10, 2, false), (10, 1, true));
        for (nodes, quorum, expected) in [
            (vec![honest], 1, Ok((10, 1))),
            (vec![dead], 1, Err("chain_rpc")),
            (vec![honest, ahead, dead], 2, Ok((10, 1))),
            (vec![honest, honest, fork], 2, Ok((10, 1))),
            (vec![honest, fork, dead], 2, Err("chain_no_quorum")),
            (vec![honest, dead, dead], 2, Err("chain_no_quorum")),
            (vec![ahead, ahead, (9, 1, false)], 2, Ok((12, 1))),
            (vec![honest, honest], 1, Err("chain_bad_quorum")),
            (vec![honest], 2, Err("chain_bad_quorum")),
            (vec![], 0, Err("chain_bad_quorum")),
        ] {
            assert_eq!(head_of(&nodes, quorum).await, expected, "{nodes:?} with {quorum}");
        }
    }
}
