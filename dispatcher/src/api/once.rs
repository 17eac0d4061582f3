//! The same request twice: under a client's `Idempotency-Key`, or, from SDKs that send none, with the same body and a mark
//! that it is a retry. A repeated request waits for the job that runs and takes its answer; it is charged once.
//! A retry of an answer that was cut (its client left) is a request of its own: what was delivered of the first is not all.

use super::error::{ApiError, Retry};
use super::refusals;
use crate::access::idempotency::{Claim, Claimed};
use crate::clock::now_us;
use crate::gateway::Shared;
use axum::http::HeaderMap;
use ledger::query::{self, JobStatus};
use protocol::id::{AccountId, Hash32, JobId};
use protocol::receipt::Finish;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 255;
/// How long a request without a key is remembered for its retries: SDKs give up after 10 minutes.
const RECENT: Duration = Duration::from_secs(15 * 60);
/// Requests without a key that are remembered.
const RECENT_MAX: usize = 16_384;
/// How long a repeated request waits for the first.
const WAIT: Duration = Duration::from_secs(9 * 60);

/// What makes a request the same as another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Once {
    /// The client's key.
    pub key: Option<String>,
    /// BLAKE3 of path and body.
    pub request: Hash32,
    /// Whether the client says that it has sent it before.
    pub is_retry: bool,
}

/// Hash of a request: another body, or another call, under the same key is a conflict.
pub fn request_hash(path: &str, bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::Hasher::new().update(path.as_bytes()).update(b"\0").update(bytes).finalize().as_bytes())
}

/// A client's `Idempotency-Key`.
///
/// # Errors
/// 400 for what is none.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().ok().filter(|t| !t.is_empty() && t.len() <= KEY_BYTES_MAX);
    let expected = format!("Idempotency-Key must be 1 to {KEY_BYTES_MAX} visible characters.");
    text.map(|t| Some(t.to_owned()))
        .ok_or_else(|| ApiError::invalid("Idempotency-Key", "invalid_value", expected))
}

/// Whether an SDK marks the request as sent again.
pub fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers.get("x-stainless-retry-count").and_then(|value| value.to_str().ok());
    count.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count > 0)
}

/// By whom and what: when it came, and its jobs.
type Known = HashMap<(AccountId, Hash32), (Instant, Vec<JobId>)>;

/// Requests without a key, for their retries.
#[derive(Default)]
pub(crate) struct Recent {
    /// Held for one look-up; never across an await.
    jobs: Mutex<Known>,
}

impl Recent {
    fn find(&self, account: AccountId, request: Hash32) -> Option<Vec<JobId>> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(&(account, request)).filter(|(at, _)| at.elapsed() < RECENT).map(|(_, jobs)| jobs.clone())
    }

    /// Notes it, unless somebody else has meanwhile: `standing` is what was found before.
    fn note(&self, account: AccountId, request: Hash32, ours: &[JobId], standing: Option<&[JobId]>) -> bool {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= RECENT_MAX {
            jobs.retain(|_, (at, _)| at.elapsed() < RECENT);
        }
        if jobs.len() >= RECENT_MAX {
            // The oldest half: its retries, should any come, are requests of their own.
            let mut times: Vec<Instant> = jobs.values().map(|(at, _)| *at).collect();
            let (_, middle, _) = times.select_nth_unstable(RECENT_MAX / 2);
            let middle = *middle;
            jobs.retain(|_, (at, _)| *at > middle);
        }
        let entry = jobs.get(&(account, request)).map(|(_, jobs)| jobs.as_slice());
        if entry.is_some() && standing.is_some() && entry != standing {
            return false;
        }
        jobs.insert((account, request), (Instant::now(), ours.to_vec()));
        true
    }
}

/// What became of the jobs that a request stands for.
enum Standing {
    Running,
    Elsewhere,
    Answered(Vec<JobId>),
    Free,
}

/// Whether a request is to be served, `None`, or these jobs have answered it.
///
/// # Errors
/// 409 for a key that stands for something else, and while the first runs where it cannot be waited for.
pub(crate) async fn turn(
    shared: &Shared,
    account: AccountId,
    once: &Once,
    ours: &[JobId],
) -> Result<Option<Vec<JobId>>, ApiError> {
    let until = tokio::time::Instant::now() + WAIT;
    let mut replaces: Option<Vec<JobId>> = None;
    loop {
        let standing = match &once.key {
            Some(key) => claim(shared, account, key, once.request, ours, replaces.as_deref()).await?,
            None if once.is_retry => match shared.recent.find(account, once.request) {
                Some(jobs) if replaces.as_ref() != Some(&jobs) => Some(jobs),
                found => {
                    let free = shared.recent.note(account, once.request, ours, found.as_deref());
                    if free { None } else { continue }
                }
            },
            None => {
                shared.recent.note(account, once.request, ours, None);
                None
            }
        };
        let Some(jobs) = standing else { return Ok(None) };
        match standing_of(shared, account, &jobs).await? {
            Standing::Answered(jobs) => return Ok(Some(jobs)),
            Standing::Free => replaces = Some(jobs),
            Standing::Elsewhere => return Err(in_progress()),
            Standing::Running => {
                for job in &jobs {
                    let ended = shared.running.until_ended(job);
                    tokio::time::timeout_at(until, ended).await.map_err(|_| in_progress())?;
                }
            }
        }
    }
}

/// Claims a client's key; gives the jobs that it stands for already.
async fn claim(
    shared: &Shared,
    account: AccountId,
    key: &str,
    request: Hash32,
    ours: &[JobId],
    replaces: Option<&[JobId]>,
) -> Result<Option<Vec<JobId>>, ApiError> {
    let Some((job, more)) = ours.split_first() else { return Ok(None) };
    let claim = Claim { job: *job, more: more.to_vec(), request, created_us: now_us() };
    let replaces = replaces.and_then(|jobs| jobs.first().copied());
    let Claimed::Taken(standing) = shared.store.claim(account, key, claim, replaces).await? else {
        return Ok(None);
    };
    if standing.request != request {
        let text = "This Idempotency-Key was used for another request; use a new key.";
        return Err(ApiError::conflict("idempotency_key_reused", text));
    }
    Ok(Some([vec![standing.job], standing.more].concat()))
}

async fn standing_of(shared: &Shared, account: AccountId, jobs: &[JobId]) -> Result<Standing, ApiError> {
    if jobs.iter().any(|job| shared.running.contains(job)) {
        return Ok(Standing::Running);
    }
    let asked = jobs.to_vec();
    let read = shared.client.read(move |state| -> Vec<Option<JobStatus>> {
        asked.iter().map(|job| query::job(state, *job).map(|view| view.status)).collect()
    });
    let statuses = read.await.map_err(|error| refusals::api_error(shared, error, None))?;
    if statuses.contains(&Some(JobStatus::Running)) {
        return Ok(Standing::Elsewhere);
    }
    let mut answered = Vec::new();
    for (job, status) in jobs.iter().zip(statuses) {
        let is_charged = status == Some(JobStatus::Captured);
        if is_charged && !was_cut(shared, account, job)? {
            answered.push(*job);
        }
    }
    // Those that ended without a charge leave the key free for another try.
    Ok(if answered.is_empty() { Standing::Free } else { Standing::Answered(answered) })
}

/// Whether the client left before the end; unknown where the contents are gone.
fn was_cut(shared: &Shared, account: AccountId, job: &JobId) -> Result<bool, ApiError> {
    let contents = shared.store.contents_of(account, job)?;
    Ok(contents.is_some_and(|contents| contents.finish == Some(Finish::Cancelled)))
}

fn in_progress() -> ApiError {
    ApiError {
        retry: Retry::AfterSeconds(1),
        ..ApiError::conflict("idempotency_in_progress", "The first of these requests is still running.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId([1; 16]);

    #[test]
    fn only_a_marked_retry_of_the_same_bytes_finds_the_first() {
        let recent = Recent::default();
        let (a, b) = (request_hash("/v1/x", b"a"), request_hash("/v1/x", b"b"));
        assert_ne!(a, request_hash("/v1/y", b"a"), "another call is another request");
        assert!(recent.note(ACCOUNT, a, &[JobId([1; 16])], None));
        assert_eq!(recent.find(ACCOUNT, a), Some(vec![JobId([1; 16])]));
        assert_eq!(recent.find(ACCOUNT, b), None);
        assert_eq!(recent.find(AccountId([2; 16]), a), None);
    }

    #[test]
    fn of_two_retries_that_find_a_failed_job_one_serves() {
        let recent = Recent::default();
        let request = request_hash("/v1/x", b"a");
        let (first, second, third) = ([JobId([1; 16])], [JobId([2; 16])], [JobId([3; 16])]);
        assert!(recent.note(ACCOUNT, request, &first, None));
        assert!(recent.note(ACCOUNT, request, &second, Some(&first)));
        assert!(!recent.note(ACCOUNT, request, &third, Some(&first)), "the second was faster");
        assert_eq!(recent.find(ACCOUNT, request), Some(second.to_vec()));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_newest() {
        let recent = Recent::default();
        for n in 0..=RECENT_MAX as u32 {
            recent.note(ACCOUNT, request_hash("", &n.to_le_bytes()), &[JobId([0; 16])], None);
        }
        assert!(recent.jobs.lock().unwrap().len() <= RECENT_MAX);
        let last = (RECENT_MAX as u32).to_le_bytes();
        assert!(recent.find(ACCOUNT, request_hash("", &last)).is_some());
    }

    #[test]
    fn retries_are_marked_by_a_number_above_zero() {
        let check = |value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("x-stainless-retry-count"),
                axum::http::HeaderValue::from_static(value),
            )]);
            assert_eq!(is_retry(&headers), expected, "{value}");
        };
        check("0", false);
        check("1", true);
        check("many", false);
    }
}
