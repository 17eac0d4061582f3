//! Receipts that this coordinator did not see through: captures that were stored and not confirmed, and what the stream
//! `RECEIPTS` holds for jobs that nobody relays any more: looked through before any hold may expire, followed from then on.
//!
//! What is charged then: the smaller of the receipt's count and what is *durably known* to have been delivered. Progress is
//! written a few milliseconds behind the client; what was delivered in those is given away, never guessed.

use super::judge::{self, Dispatched};
use super::{SettleError, capture, void};
use crate::access::settling::{Charge, Progress, Settlement, SettlementRecord};
use crate::gateway::{Company, Shared, until_raised};
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, AckKind, Message};
use futures::StreamExt;
use journal::SubmitError;
use journal::stream::{RECEIPTS_CONSUMER, RECEIPTS_STREAM};
use ledger::query::{self, JobStatus, JobView};
use protocol::event::hold::VoidReason;
use protocol::id::JobId;
use protocol::job_message::receipt_subject;
use protocol::receipt::{Receipt, SignedReceipt};
use std::sync::Arc;
use std::time::Duration;

/// Receipts taken at once.
const RECEIPTS_TOGETHER_MAX: usize = 256;
/// How long one request for receipts waits for the first.
const FETCH_WAIT_MS: u64 = 2_000;
/// Shortest time between two requests for receipts, also when they fail at once.
const ROUND_MS_MIN: u64 = 100;
/// When a receipt whose job is still relayed is looked at again.
const LOOK_AGAIN_MS: u64 = 5_000;

/// Why recovery could not be done: the gateway must not start, because holds could expire that a receipt would charge.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The stream cannot be read.
    #[error("stream {RECEIPTS_STREAM} cannot be read: {0}; is nats-server up, and were its streams made?")]
    Stream(String),
    /// A settlement did not go through.
    #[error(transparent)]
    Settle(#[from] SettleError),
}

fn stream_error(error: impl std::fmt::Display) -> RecoveryError {
    RecoveryError::Stream(error.to_string())
}

/// Captures what was stored before the last stop. A refusal means that the hold is closed: nothing is left to do.
pub(crate) async fn finish_settlements(shared: &Shared) -> Result<usize, SettleError> {
    let settlements = shared.store.settlements()?;
    let count = settlements.len();
    for settlement in settlements {
        settle_again(shared, &settlement).await?;
    }
    Ok(count)
}

async fn settle_again(shared: &Shared, settlement: &Settlement) -> Result<(), SettleError> {
    match capture(shared, settlement).await {
        Ok(captured) => {
            tracing::info!(target: "recovery", job = %settlement.job, output_units = captured.output_units, "captured after restart");
            Ok(())
        }
        Err(SettleError::Submit(SubmitError::Refused { refusal, .. })) => {
            tracing::warn!(target: "recovery", job = %settlement.job, refusal = refusal.name(), "not captured");
            Ok(shared.store.end_settlement(settlement.job).await?)
        }
        Err(error) => Err(error),
    }
}

/// The durable reader of receipts that was made with the streams.
pub(crate) async fn consumer(shared: &Shared) -> Result<PullConsumer, RecoveryError> {
    let context = jetstream::new(shared.nats.clone());
    let stream = context.get_stream(RECEIPTS_STREAM).await.map_err(stream_error)?;
    stream.get_consumer(RECEIPTS_CONSUMER).await.map_err(stream_error)
}

/// Whether a job that nobody relays here is this gateway's to look after.
pub(crate) fn is_ours(shared: &Shared, job: &JobId) -> Result<bool, crate::access::AccessError> {
    Ok(match shared.company {
        Company::Alone => true,
        Company::Others => shared.store.settlement(job)?.is_some() || shared.store.progress(job)?.is_some(),
    })
}

/// Charges every open job whose receipt lies in the stream already; returns how many receipts there were. The stream is
/// asked job by job and not through the consumer: what an earlier run had fetched and not acknowledged is not given out
/// again for a while, and no hold may expire meanwhile.
pub(crate) async fn drain(shared: &Shared) -> Result<usize, RecoveryError> {
    let context = jetstream::new(shared.nats.clone());
    let stream = context.get_stream(RECEIPTS_STREAM).await.map_err(stream_error)?;
    let open = shared.client.read(query::open_jobs).await.map_err(SettleError::from)?;
    let mut taken = 0;
    for job in open {
        let Some(last) = job.attempts.last() else { continue };
        if !is_ours(shared, &job.job).map_err(SettleError::from)? {
            continue;
        }
        let attempt = job.attempts.len() as u32 - 1;
        let subject = receipt_subject(&last.operator, &job.job, attempt);
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                recover(shared, job.job, attempt, &message.payload).await?;
                taken += 1;
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(stream_error(error)),
        }
    }
    Ok(taken)
}

/// Takes receipts as they come, for ever. A failure is logged and tried again: the receipt is not acknowledged.
pub(crate) async fn follow(shared: Arc<Shared>, consumer: PullConsumer) {
    let mut stopping = shared.stopping.subscribe();
    let mut rounds = tokio::time::interval(Duration::from_millis(ROUND_MS_MIN));
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let expires = Duration::from_millis(FETCH_WAIT_MS);
        let fetch = consumer.batch().max_messages(RECEIPTS_TOGETHER_MAX).expires(expires);
        tokio::select! {
            () = until_raised(&mut stopping) => return,
            batch = fetch.messages() => match batch {
                Ok(mut batch) => while let Some(Ok(message)) = batch.next().await {
                    if let Err(error) = take(&shared, &message).await {
                        tracing::warn!(target: "recovery", %error, "receipt not taken; it will come again");
                    }
                },
                Err(error) => tracing::warn!(target: "recovery", %error, "receipts cannot be read"),
            }
        }
    }
}

/// One receipt of the stream.
async fn take(shared: &Shared, message: &Message) -> Result<(), RecoveryError> {
    let ack = match parse_subject(&message.subject) {
        None => AckKind::Ack,
        Some((job, _)) if shared.running.contains(&job) => {
            AckKind::Nak(Some(Duration::from_millis(LOOK_AGAIN_MS)))
        }
        // Another gateway's, while its hold is open: it comes again until that one, or the hold's end, has dealt with it.
        Some((job, attempt))
            if !is_ours(shared, &job).map_err(SettleError::from)?
                && open_job(shared, job, attempt).await.map_err(SettleError::from)?.is_some() =>
        {
            AckKind::Nak(Some(Duration::from_millis(LOOK_AGAIN_MS)))
        }
        Some((job, attempt)) => {
            recover(shared, job, attempt, &message.payload).await?;
            AckKind::Ack
        }
    };
    message.ack_with(ack).await.map_err(stream_error)
}

/// `receipt.<operator>.<job>.<attempt>`
fn parse_subject(subject: &str) -> Option<(JobId, u32)> {
    let mut tokens = subject.split('.').skip(2);
    Some((tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?))
}

/// Charges a job that nobody relays, if its hold is open and something is durably known to have been delivered.
async fn recover(shared: &Shared, job: JobId, attempt: u32, bytes: &[u8]) -> Result<(), SettleError> {
    let Some((view, dispatched)) = open_job(shared, job, attempt).await? else { return Ok(()) };
    if let Some(settlement) = shared.store.settlement(&job)? {
        // Verified when it came; only its capture did not go through.
        return settle_again(shared, &settlement).await;
    }
    let receipt = match judge::open(bytes, &dispatched) {
        Ok(receipt) => receipt,
        Err(fault) => {
            // Anybody's garbage on an operator's subject must not close a hold: it expires by itself.
            tracing::warn!(target: "recovery", %job, attempt, %fault, "receipt does not stand");
            return Ok(());
        }
    };
    let progress = shared.store.progress(&job)?.filter(|p| p.attempt == attempt);
    match judge_progress(&receipt, progress, SignedReceipt::hash(bytes)) {
        Ok(settlement) => {
            let record = SettlementRecord {
                settlement: settlement.clone(),
                signed_receipt: bytes.to_vec(),
                contents: None,
            };
            shared.store.begin_settlement(record).await?;
            settle_again(shared, &settlement).await
        }
        Err(reason) => {
            tracing::info!(target: "recovery", %job, ?reason, held = %view.amount.0, "hold released");
            void(shared, job, reason).await
        }
    }
}

/// What a recovered receipt comes to.
fn judge_progress(
    receipt: &Receipt,
    progress: Option<Progress>,
    hash: protocol::id::Hash32,
) -> Result<Settlement, VoidReason> {
    let Some(progress) = progress.filter(|p| p.delivered > 0 && receipt.output_tokens > 0) else {
        return Err(VoidReason::NoUsage);
    };
    let (worker, gateway) = (receipt.output_tokens, progress.delivered);
    if worker == gateway && receipt.chain_head != progress.chain {
        return Err(VoidReason::ReceiptInvalid);
    }
    Ok(Settlement {
        job: receipt.job,
        attempt: receipt.attempt,
        charge: if gateway >= worker { Charge::Completed } else { Charge::ClientGone },
        input_units: receipt.input_tokens,
        worker_units: worker,
        gateway_units: gateway,
        receipt: hash,
        chain_head: if worker <= gateway { receipt.chain_head } else { progress.chain },
    })
}

/// The job with its last attempt, when its hold is open and that attempt is the one asked for.
async fn open_job(
    shared: &Shared,
    job: JobId,
    attempt: u32,
) -> Result<Option<(JobView, Dispatched)>, SubmitError> {
    shared
        .client
        .read(move |state| {
            let view = query::job(state, job).filter(|v| v.status == JobStatus::Running)?;
            let last = view.attempts.len().checked_sub(1)?;
            if last as u64 != u64::from(attempt) {
                return None;
            }
            let card = query::rate_card_by_version(state, view.rate_card_version)?;
            let dispatched = Dispatched::of(&view, card.card.model(&view.model)?)?;
            Some((view, dispatched))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::{Hash32, NodeId, OperatorId};
    use protocol::rate::ProofClass;
    use protocol::receipt::Finish;

    fn receipt(output_tokens: u64) -> Receipt {
        Receipt {
            version: 1,
            job: JobId([1; 16]),
            attempt: 0,
            node: NodeId([2; 16]),
            operator: OperatorId([3; 32]),
            weights: Hash32([4; 32]),
            numerics: String::new(),
            proof_class: ProofClass::ReExecutable,
            body: Hash32([5; 32]),
            input_tokens: 7,
            output_tokens,
            output: Hash32([6; 32]),
            chain_head: Hash32([output_tokens as u8; 32]),
            finish: Finish::Stop,
            started_us: 0,
            ended_us: 0,
            backend: String::new(),
        }
    }

    fn judged(worker: u64, delivered: Option<u64>) -> Result<(Charge, u64, u64, u8), VoidReason> {
        let progress = delivered.map(|d| Progress { attempt: 0, delivered: d, chain: Hash32([d as u8; 32]) });
        judge_progress(&receipt(worker), progress, Hash32([9; 32]))
            .map(|s| (s.charge, s.worker_units, s.gateway_units, s.chain_head.0[0]))
    }

    #[test]
    fn only_what_is_durably_known_to_be_delivered_is_charged() {
        assert_eq!(judged(5, Some(5)), Ok((Charge::Completed, 5, 5, 5)));
        assert_eq!(judged(5, Some(3)), Ok((Charge::ClientGone, 5, 3, 3)), "the persisted prefix");
        assert_eq!(judged(3, Some(5)), Ok((Charge::Completed, 3, 5, 3)), "the smaller count");
        assert_eq!(judged(5, None), Err(VoidReason::NoUsage));
        assert_eq!(judged(5, Some(0)), Err(VoidReason::NoUsage));
        assert_eq!(judged(0, Some(5)), Err(VoidReason::NoUsage));
    }

    #[test]
    fn a_chain_that_differs_at_the_same_count_is_no_receipt_of_this_answer() {
        let progress = Progress { attempt: 0, delivered: 5, chain: Hash32([8; 32]) };
        let judged = judge_progress(&receipt(5), Some(progress), Hash32([9; 32]));
        assert_eq!(judged, Err(VoidReason::ReceiptInvalid));
    }

    #[test]
    fn subjects() {
        let job = JobId([1; 16]);
        assert_eq!(parse_subject(&receipt_subject(&OperatorId([3; 32]), &job, 2)), Some((job, 2)));
        assert_eq!(parse_subject("receipt.x"), None);
    }
}
