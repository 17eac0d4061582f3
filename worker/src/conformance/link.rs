//! The kit's side of the wire: makes jobs as a gateway does, sends them, gathers what comes back.

use super::{ConformanceError, ConformanceOptions, first_word, patience};
use async_nats::{Client, Subscriber};
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use futures::StreamExt;
use protocol::id::{Hash32, JobId};
use protocol::job_message::{
    Cancel, Frame, JOB_PROTOCOL, JobBody, JobControls, JobOffer, ResultMessage, cancel_subject, offer_subject,
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Token of the kit in result subjects.
pub(crate) const GATEWAY: &str = "conformance";
/// How long the kit's jobs may take.
const DEADLINE_US: u64 = 120_000_000;

pub(crate) struct Link {
    pub options: ConformanceOptions,
    pub results: Subscriber,
    pub heartbeats: Subscriber,
}

/// A job, as a gateway makes it.
#[derive(Clone)]
pub(crate) struct Job {
    pub body: JobBody,
    pub offer: JobOffer,
}

/// What came of an offer.
#[derive(Default)]
pub(crate) struct Taken {
    pub job: Option<Job>,
    /// The first message and how long it took; `None`: nothing came.
    pub first: Option<(Duration, ResultMessage)>,
    pub frames: Vec<Frame>,
    /// `done` or `failed`.
    pub last: Option<ResultMessage>,
    /// Messages that may not be there, in words.
    pub wrong: Vec<String>,
}

impl Taken {
    pub fn ids(&self) -> Vec<u32> {
        self.frames.iter().flat_map(|frame| frame.ids.iter().copied()).collect()
    }

    /// The signed receipt of its `done`.
    pub fn receipt(&self) -> Option<Vec<u8>> {
        match self.last.as_ref()? {
            ResultMessage::Done { receipt, .. } => data_encoding::BASE64.decode(receipt.as_bytes()).ok(),
            _ => None,
        }
    }
}

fn nats_error(error: impl std::fmt::Display) -> ConformanceError {
    ConformanceError::Nats(error.to_string())
}

pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without the system's chance the kit's ids repeat themselves, which the worker then says.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

impl Link {
    pub async fn open(options: ConformanceOptions) -> Result<Link, ConformanceError> {
        let node = format!("{}.{}", options.operator, options.node);
        let results = options.nats.subscribe(format!("result.{node}.>")).await.map_err(nats_error)?;
        let heartbeats = options.nats.subscribe(format!("hb.{node}")).await.map_err(nats_error)?;
        options.nats.flush().await.map_err(nats_error)?;
        let link = Link { options, results, heartbeats };
        // A key that is none is found before anything is sent.
        link.seal(b"")?;
        Ok(link)
    }

    pub fn nats(&self) -> &Client {
        &self.options.nats
    }

    /// A greedy answer of at most so many tokens.
    pub fn job(&self, max_tokens: u32) -> Job {
        let job = JobId(random());
        let body = JobBody {
            job,
            prompt_ids: self.options.prompt_ids.clone(),
            messages: serde_json::json!([{"role": "user", "content": self.options.prompt}]),
            max_tokens,
            temperature_millionths: 0,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: None,
            sampling_key: Hash32(random()),
            stop: Vec::new(),
            controls: JobControls::default(),
            salt: Hash32(random()),
        };
        let offer = JobOffer {
            protocol: JOB_PROTOCOL,
            job,
            attempt: 0,
            node: self.options.node,
            gateway: GATEWAY.to_owned(),
            model: self.options.model.clone(),
            weights: self.options.weights,
            deadline_us: now_us() + DEADLINE_US,
            body_commitment: body.commitment(),
            sealed_body: String::new(),
        };
        Job { body, offer }
    }

    fn seal(&self, plain: &[u8]) -> Result<String, ConformanceError> {
        let key = PublicKey::from(self.options.sealing_key.0);
        let sealed = key.seal(&mut OsRng, plain).map_err(|e| ConformanceError::Key(e.to_string()))?;
        Ok(data_encoding::BASE64.encode(&sealed))
    }

    /// Seals the body into the offer as it stands.
    pub fn close(&self, job: &mut Job) -> Result<(), ConformanceError> {
        let plain = serde_json::to_vec(&job.body).map_err(nats_error)?;
        job.offer.sealed_body = self.seal(&plain)?;
        Ok(())
    }

    pub async fn send(&self, payload: Vec<u8>) -> Result<(), ConformanceError> {
        let subject = offer_subject(&self.options.operator, &self.options.node);
        self.nats().publish(subject, payload.into()).await.map_err(nats_error)?;
        self.nats().flush().await.map_err(nats_error)
    }

    pub async fn cancel(&self, cancel: &Cancel) -> Result<(), ConformanceError> {
        let subject = cancel_subject(&self.options.operator, &self.options.node);
        let payload = serde_json::to_vec(cancel).map_err(nats_error)?;
        self.nats().publish(subject, payload.into()).await.map_err(nats_error)?;
        self.nats().flush().await.map_err(nats_error)
    }

    /// Offers a job, sealing its body, and gathers its whole answer.
    pub async fn offer(&mut self, job: &mut Job) -> Result<Taken, ConformanceError> {
        self.close(job)?;
        self.offer_as_is(job).await
    }

    /// Offers a job as it stands.
    pub async fn offer_as_is(&mut self, job: &Job) -> Result<Taken, ConformanceError> {
        self.send(serde_json::to_vec(&job.offer).map_err(nats_error)?).await?;
        Ok(self.gather(job, usize::MAX).await)
    }

    /// The messages of a job until its end, or until so many frames came.
    pub async fn gather(&mut self, job: &Job, frames_max: usize) -> Taken {
        let mut taken = Taken { job: Some(job.clone()), ..Taken::default() };
        self.gather_more(&mut taken, frames_max).await;
        taken
    }

    /// Goes on with an answer that was not at its end.
    pub async fn gather_more(&mut self, taken: &mut Taken, frames_max: usize) {
        let Some(job) = taken.job.clone() else { return };
        let tail = format!(".{}.{}.{}", job.offer.gateway, job.offer.job, job.offer.attempt);
        let begun = Instant::now();
        while taken.frames.len() < frames_max {
            let wait = if taken.first.is_none() { first_word() } else { patience() };
            let until = tokio::time::Instant::from_std(begun + wait);
            let next = tokio::time::timeout_at(until, self.results.next()).await;
            let Ok(Some(message)) = next else { return };
            if !message.subject.ends_with(&tail) {
                continue;
            }
            let came = match serde_json::from_slice::<ResultMessage>(&message.payload) {
                Ok(came) => came,
                Err(error) => {
                    taken.wrong.push(format!("a message that is none: {error}"));
                    return;
                }
            };
            if taken.first.is_none() {
                taken.first = Some((begun.elapsed(), came.clone()));
            }
            match came {
                ResultMessage::Frame(frame) => taken.frames.push(frame),
                ResultMessage::Accept { .. } if matches!(&taken.first, Some((_, first)) if *first == came) => {
                    // The first is where it belongs; a second one is noted by the next arm through its place.
                    if taken.last.is_some() || !taken.frames.is_empty() {
                        taken.wrong.push("accept in the middle of an answer".to_owned());
                    }
                }
                ResultMessage::Accept { .. } => taken.wrong.push("accept twice".to_owned()),
                ResultMessage::Nak { .. } | ResultMessage::Done { .. } | ResultMessage::Failed { .. } => {
                    taken.last = Some(came);
                    return;
                }
            }
        }
    }

    /// Whether anything comes about a job within a moment.
    pub async fn anything(&mut self, job: &Job, moment: Duration) -> Option<String> {
        let name = job.offer.job.to_string();
        let until = tokio::time::Instant::now() + moment;
        loop {
            let message = tokio::time::timeout_at(until, self.results.next()).await.ok()??;
            if message.subject.contains(&name) {
                return Some(format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload)));
            }
        }
    }
}
