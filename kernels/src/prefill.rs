//! One sequence of known tokens through the model, many rows at a time: what re-execution, embeddings and plausibility share.

use crate::error::Error;
use crate::forward::{Output, Row, Workspace};
use crate::kv::KvCache;
use crate::model::Model;
use crate::pool::Pool;

/// Rows of one pass.
pub(crate) const PREFILL_ROWS: usize = 64;

/// A sequence on its way.
pub(crate) struct Prefill<'p> {
    pub model: &'p Model,
    pub pool: &'p Pool,
    pub space: Workspace,
    pub cache: KvCache,
}

impl<'p> Prefill<'p> {
    pub(crate) fn new(model: &'p Model, pool: &'p Pool) -> Prefill<'p> {
        let space = Workspace::new(model, PREFILL_ROWS, PREFILL_ROWS);
        Prefill { model, pool, space, cache: KvCache::new(model.kv_shape()) }
    }

    /// Runs all `tokens`; calls `each` after every pass with its rows. `each` returns whether to go on.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::Device`], and what `each` returns.
    pub(crate) fn run(
        &mut self,
        tokens: &[u32],
        output: impl Fn(usize) -> Output,
        mut each: impl FnMut(&mut Prefill<'p>, &[Row]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        for start in (0..tokens.len()).step_by(PREFILL_ROWS) {
            let end = tokens.len().min(start + PREFILL_ROWS);
            let row =
                |position| Row { sequence: 0, position, token: tokens[position], output: output(position) };
            let rows: Vec<Row> = (start..end).map(row).collect();
            self.cache.grow(end, &mut Vec::new());
            self.model.forward(self.pool, &mut self.space, &rows, &mut [&mut self.cache])?;
            if let Some(row) = (0..rows.len()).find(|row| self.space.is_bad(*row)) {
                return Err(Error::NonFinite { position: rows[row].position as u32 });
            }
            if !each(self, &rows)? {
                break;
            }
        }
        Ok(())
    }
}
