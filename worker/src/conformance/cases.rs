//! The cases, each a question with one answer. Must not: wait for longer than the protocol allows a worker.

use super::link::{Job, Link, Taken, now_us};
use super::{ConformanceError, Finding, naked, patience, quiet};
use futures::StreamExt;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, JobId};
use protocol::job_message::{
    ACCEPT_MS_MAX, Cancel, HEARTBEAT_MS, Heartbeat, JOB_PROTOCOL, NakReason, ResultMessage, receipt_subject,
};
use protocol::receipt::{Finish, Receipt, SignedReceipt};
use std::time::Duration;

/// Most ids of a frame, and most frames without any.
const FRAME_IDS_MAX: usize = 1_024;
const EMPTY_FRAMES_MAX: usize = 16;
/// A cancelled node's receipt must be there by then.
const CANCEL_MS_MAX: u64 = 10_000;
/// More slots than this are not filled to see what happens.
const SLOTS_FILLED_MAX: u32 = 16;

type Answer = Result<Finding, ConformanceError>;

fn last_word(taken: &Taken) -> String {
    match (&taken.last, &taken.first) {
        (Some(ResultMessage::Failed { detail, .. }), _) => format!("failed: {detail}"),
        (Some(ResultMessage::Nak { reason, detail, .. }), _) => format!("nak {reason:?}: {detail}"),
        (Some(last), _) => format!("{last:?}"),
        (None, Some(_)) => format!("no end after {} frames", taken.frames.len()),
        (None, None) => "nothing".to_owned(),
    }
}

async fn beat(link: &mut Link) -> Result<Heartbeat, String> {
    let wait = Duration::from_millis(HEARTBEAT_MS * 3 / 2);
    let message = tokio::time::timeout(wait, link.heartbeats.next()).await;
    let message = message.map_err(|_| format!("no heartbeat within {} ms", wait.as_millis()))?;
    let message = message.ok_or("the subscription ended")?;
    serde_json::from_slice(&message.payload).map_err(|error| format!("not a heartbeat: {error}"))
}

pub async fn heartbeats(link: &mut Link) -> Finding {
    let (first, second) = match (beat(link).await, beat(link).await) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(wrong), _) | (_, Err(wrong)) => return Finding::Wrong(wrong),
    };
    let options = &link.options;
    let wrong = [
        (first.protocol != JOB_PROTOCOL, format!("protocol is {}, not {JOB_PROTOCOL}", first.protocol)),
        (first.node != options.node, format!("node is {}, the subject's is {}", first.node, options.node)),
        (second.seq != first.seq + 1, format!("seq went from {} to {}, not by one", first.seq, second.seq)),
        (first.slots == 0, "slots is 0: such a node gets no jobs".to_owned()),
        (
            !first.models.contains(&options.model),
            format!("models {:?} lack {:?}", first.models, options.model),
        ),
    ];
    wrong
        .into_iter()
        .find(|(is_wrong, _)| *is_wrong)
        .map_or(Finding::Fine, |(_, wrong)| Finding::Wrong(wrong))
}

pub fn accepted(taken: &Taken) -> Finding {
    match &taken.first {
        None => Finding::Wrong(format!("nothing came within {ACCEPT_MS_MAX} ms")),
        Some((took, _)) if took.as_millis() > u128::from(ACCEPT_MS_MAX) => Finding::Wrong(format!(
            "the first message took {} ms; {ACCEPT_MS_MAX} are allowed",
            took.as_millis()
        )),
        Some((_, ResultMessage::Accept { attempt: 0 })) => {
            Finding::when(taken.wrong.is_empty(), || taken.wrong.join("; "))
        }
        Some((_, other)) => {
            Finding::Wrong(format!("the first message is not accept of attempt 0 but {other:?}"))
        }
    }
}

pub fn frames(taken: &Taken, max_tokens: usize) -> Finding {
    let gap = taken.frames.iter().enumerate().find(|(at, frame)| frame.seq != *at as u64);
    if let Some((at, frame)) = gap {
        return Finding::Wrong(format!("frame {} came where {at} was due", frame.seq));
    }
    let ids = taken.ids().len();
    let large = taken.frames.iter().map(|frame| frame.ids.len()).max().unwrap_or(0);
    let empty = taken.frames.iter().filter(|frame| frame.ids.is_empty()).count();
    let wrong = [
        (ids == 0, format!("no token came: {}", last_word(taken))),
        (ids > max_tokens, format!("{ids} tokens came; the job allows {max_tokens}")),
        (large > FRAME_IDS_MAX, format!("a frame of {large} ids; at most {FRAME_IDS_MAX} are allowed")),
        (
            empty > EMPTY_FRAMES_MAX,
            format!("{empty} frames without ids; at most {EMPTY_FRAMES_MAX} are allowed"),
        ),
    ];
    wrong
        .into_iter()
        .find(|(is_wrong, _)| *is_wrong)
        .map_or(Finding::Fine, |(_, wrong)| Finding::Wrong(wrong))
}

pub fn end(taken: &Taken) -> Finding {
    match &taken.last {
        Some(ResultMessage::Done { seq, .. }) => Finding::when(*seq == taken.frames.len() as u64, || {
            format!("done says {seq} frames, {} came", taken.frames.len())
        }),
        _ => Finding::Wrong(format!("expected done; {}", last_word(taken))),
    }
}

pub fn signature(link: &Link, taken: &Taken) -> Finding {
    let Some(bytes) = taken.receipt() else {
        return Finding::Wrong("done holds no base64 receipt".to_owned());
    };
    match SignedReceipt::open(&bytes) {
        Ok(receipt) => Finding::when(receipt.operator == link.options.operator, || {
            format!("signed as {}, the subject's operator is {}", receipt.operator, link.options.operator)
        }),
        Err(error) => Finding::Wrong(error.to_string()),
    }
}

pub fn receipt(link: &Link, taken: &Taken) -> Finding {
    let Some(bytes) = taken.receipt() else {
        return Finding::Wrong("done holds no base64 receipt".to_owned());
    };
    match (SignedReceipt::open(&bytes), &taken.job) {
        (Ok(receipt), Some(job)) => match compare(link, taken, job, &receipt) {
            None => Finding::Fine,
            Some(wrong) => Finding::Wrong(wrong),
        },
        (Err(error), _) => Finding::Wrong(error.to_string()),
        (Ok(_), None) => Finding::Skipped("no job was offered".to_owned()),
    }
}

fn compare(link: &Link, taken: &Taken, job: &Job, receipt: &Receipt) -> Option<String> {
    let ids = taken.ids();
    let claimed = usize::try_from(receipt.output_tokens).unwrap_or(usize::MAX);
    if claimed > ids.len() {
        return Some(format!("it claims {claimed} output tokens, {} came", ids.len()));
    }
    let mut count = 0;
    let chain = taken.frames.iter().find_map(|frame| {
        count += frame.ids.len();
        (count == claimed && !frame.ids.is_empty()).then_some(frame.chain)
    });
    let output = commit(Committed::Output, &job.body.salt.0, &token_bytes(&ids[..claimed]));
    let options = &link.options;
    let fields = [
        ("version", receipt.version == 1),
        ("job", receipt.job == job.offer.job),
        ("attempt", receipt.attempt == job.offer.attempt),
        ("node", receipt.node == options.node),
        ("weights", receipt.weights == options.weights),
        ("proof_class", receipt.proof_class == options.proof_class),
        ("body", receipt.body == job.offer.body_commitment),
        ("input_tokens", receipt.input_tokens == job.body.prompt_ids.len() as u64),
        ("output", receipt.output == output),
        ("chain_head", claimed == 0 || chain == Some(receipt.chain_head)),
        (
            "finish length below max_tokens",
            receipt.finish != Finish::Length || claimed == job.body.max_tokens as usize,
        ),
    ];
    let wrong: Vec<&str> = fields.iter().filter(|(_, fine)| !fine).map(|(name, _)| *name).collect();
    (!wrong.is_empty()).then(|| format!("not as dispatched or sent: {}", wrong.join(", ")))
}

pub async fn streamed(link: &mut Link, taken: &Taken) -> Finding {
    let (Some(bytes), Some(job)) = (taken.receipt(), &taken.job) else {
        return Finding::Skipped("there was no receipt".to_owned());
    };
    let subject = receipt_subject(&link.options.operator, &job.offer.job, job.offer.attempt);
    let context = async_nats::jetstream::new(link.nats().clone());
    let stream = match context.get_stream("RECEIPTS").await {
        Ok(stream) => stream,
        Err(error) => return Finding::Skipped(format!("stream RECEIPTS cannot be read: {error}")),
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    loop {
        if let Ok(message) = stream.get_last_raw_message_by_subject(&subject).await {
            return Finding::when(message.payload.as_ref() == bytes, || {
                "it is another than that of done".to_owned()
            });
        }
        if tokio::time::Instant::now() > until {
            return Finding::Wrong(format!("nothing on {subject} within 10 s"));
        }
        looks.tick().await;
    }
}

fn refused(taken: &Taken, expected: NakReason) -> Finding {
    Finding::when(naked(taken) == Some(expected), || {
        let first = taken.first.as_ref().map_or("nothing".to_owned(), |(_, first)| format!("{first:?}"));
        format!("expected nak {expected:?}, came {first}")
    })
}

fn answered(taken: &Taken) -> Finding {
    Finding::when(matches!(taken.last, Some(ResultMessage::Done { .. })), || last_word(taken))
}

pub async fn unknown_fields(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    link.close(&mut job)?;
    let mut offer = serde_json::to_value(&job.offer).map_err(|e| ConformanceError::Nats(e.to_string()))?;
    offer["of_a_later_version"] = serde_json::json!({ "hint": [1, 2] });
    link.send(offer.to_string().into_bytes()).await?;
    Ok(answered(&link.gather(&job, usize::MAX).await))
}

pub async fn other_model(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    job.offer.model.push_str("-that-nobody-serves");
    Ok(refused(&link.offer(&mut job).await?, NakReason::Model))
}

pub async fn other_weights(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    job.offer.weights = Hash32([0xee; 32]);
    Ok(refused(&link.offer(&mut job).await?, NakReason::Model))
}

pub async fn other_body(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    link.close(&mut job)?;
    job.offer.body_commitment = Hash32([0xee; 32]);
    Ok(refused(&link.offer_as_is(&job).await?, NakReason::Body))
}

pub async fn replayed_body(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    link.close(&mut job)?;
    job.offer.job = link.job(4).offer.job;
    Ok(refused(&link.offer_as_is(&job).await?, NakReason::Body))
}

pub async fn closed_body(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    job.offer.sealed_body = data_encoding::BASE64.encode(&[7; 96]);
    Ok(refused(&link.offer_as_is(&job).await?, NakReason::Body))
}

pub async fn repeated(link: &mut Link) -> Answer {
    let mut job = link.job(12);
    link.close(&mut job)?;
    let payload = serde_json::to_vec(&job.offer).map_err(|e| ConformanceError::Nats(e.to_string()))?;
    for _ in 0..3 {
        link.send(payload.clone()).await?;
    }
    let taken = link.gather(&job, usize::MAX).await;
    let more = link.anything(&job, quiet()).await;
    Ok(match (frames(&taken, 12), more) {
        (Finding::Fine, None) => Finding::when(taken.wrong.is_empty(), || taken.wrong.join("; ")),
        (Finding::Fine, Some(more)) => Finding::Wrong(format!("after its end came {more}")),
        (wrong, _) => wrong,
    })
}

pub async fn bad_gateway(link: &mut Link) -> Answer {
    let mut job = link.job(4);
    job.offer.gateway = "two.tokens".to_owned();
    link.close(&mut job)?;
    link.send(serde_json::to_vec(&job.offer).map_err(|e| ConformanceError::Nats(e.to_string()))?).await?;
    Ok(match link.anything(&job, quiet()).await {
        None => Finding::Fine,
        Some(came) => Finding::Wrong(format!("it answered: {came}")),
    })
}

pub async fn garbage(link: &mut Link) -> Answer {
    for payload in [&b""[..], b"{", b"[]", b"{\"protocol\":1}", &[0xff; 64]] {
        link.send(payload.to_vec()).await?;
    }
    let mut job = link.job(4);
    Ok(answered(&link.offer(&mut job).await?))
}

pub async fn cancel_of_nothing(link: &mut Link) -> Answer {
    let nobody = JobId([0; 16]);
    for job in [nobody, link.job(1).offer.job] {
        link.cancel(&Cancel { job, attempt: 0 }).await?;
    }
    let mut job = link.job(4);
    Ok(answered(&link.offer(&mut job).await?))
}

pub async fn cancel(link: &mut Link) -> Answer {
    let mut job = link.job(512);
    link.close(&mut job)?;
    link.send(serde_json::to_vec(&job.offer).map_err(|e| ConformanceError::Nats(e.to_string()))?).await?;
    let mut taken = link.gather(&job, 1).await;
    if taken.frames.is_empty() {
        return Ok(Finding::Wrong(format!("no frame to cancel after: {}", last_word(&taken))));
    }
    link.cancel(&Cancel { job: job.offer.job, attempt: 0 }).await?;
    let cancelled = now_us();
    link.gather_more(&mut taken, usize::MAX).await;
    let took_ms = now_us().saturating_sub(cancelled) / 1_000;
    let finish =
        taken.receipt().and_then(|bytes| SignedReceipt::open(&bytes).ok()).map(|receipt| receipt.finish);
    Ok(match (receipt(link, &taken), finish) {
        (Finding::Fine, _) if took_ms > CANCEL_MS_MAX => {
            Finding::Wrong(format!("the receipt took {took_ms} ms; {CANCEL_MS_MAX} are allowed"))
        }
        (Finding::Fine, Some(Finish::Cancelled | Finish::Stop)) => Finding::Fine,
        (Finding::Fine, finish) => {
            Finding::Wrong(format!("finish is {finish:?}: the answer was not stopped"))
        }
        (wrong, _) => wrong,
    })
}

pub async fn busy(link: &mut Link) -> Answer {
    let slots = match beat(link).await {
        Ok(beat) if beat.slots <= SLOTS_FILLED_MAX => beat.slots,
        Ok(beat) => return Ok(Finding::Skipped(format!("{} slots are too many to fill", beat.slots))),
        Err(wrong) => return Ok(Finding::Wrong(wrong)),
    };
    let mut jobs = Vec::new();
    for _ in 0..=slots {
        let mut job = link.job(512);
        link.close(&mut job)?;
        link.send(serde_json::to_vec(&job.offer).map_err(|e| ConformanceError::Nats(e.to_string()))?).await?;
        jobs.push(job);
    }
    let mut firsts: Vec<(JobId, ResultMessage)> = Vec::new();
    let until = tokio::time::Instant::now() + patience();
    while firsts.len() < jobs.len() {
        let Ok(Some(message)) = tokio::time::timeout_at(until, link.results.next()).await else { break };
        let of = |job: &&Job| message.subject.contains(&job.offer.job.to_string());
        let Some(job) = jobs.iter().find(of).map(|job| job.offer.job) else { continue };
        if firsts.iter().all(|(seen, _)| *seen != job)
            && let Ok(first) = serde_json::from_slice(&message.payload)
        {
            firsts.push((job, first));
        }
    }
    let is_busy = |first: &ResultMessage| matches!(first, ResultMessage::Nak { reason: NakReason::Busy, .. });
    let busy = firsts.iter().filter(|(_, first)| is_busy(first)).count();
    let running = jobs.iter().filter(|job| firsts.iter().any(|(id, f)| *id == job.offer.job && !is_busy(f)));
    for job in running.cloned().collect::<Vec<_>>() {
        link.cancel(&Cancel { job: job.offer.job, attempt: 0 }).await?;
        link.gather(&job, usize::MAX).await;
    }
    Ok(Finding::when(busy >= 1, || format!("{} offers to {slots} slots, and none was refused", jobs.len())))
}

pub async fn still_works(link: &mut Link) -> Answer {
    let mut job = link.job(8);
    let taken = link.offer(&mut job).await?;
    Ok(match (frames(&taken, 8), end(&taken)) {
        (Finding::Fine, Finding::Fine) => receipt(link, &taken),
        (Finding::Fine, wrong) | (wrong, _) => wrong,
    })
}
