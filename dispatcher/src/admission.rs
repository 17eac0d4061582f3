//! From a parsed request to a committed hold and dispatch: count, price the worst case, choose a node, one `Admit`.
//! Checks in this order: model (404), prompt and bounds (400), credit (402), a node (503).

use crate::access::{random_16, random_32};
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::refusals;
use crate::api::request::ChatRequest;
use crate::clock::now_us;
use crate::gateway::{ServedModel, Shared};
use crate::job::{Delivery, Job};
use crate::router::Report;
use crate::turn;
use journal::Outcome;
use kernels::ChatMessage;
use ledger::command::{Admit, Command};
use ledger::query;
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Actor;
use protocol::id::{AccountId, Hash32, HoldId, IdempotencyKey, JobId};
use protocol::job_message::{JobBody, sampling_key};
use protocol::rate::{ModelRate, price_ceil};

/// Output bound of a request that fixes none, tokens.
pub const DEFAULT_OUTPUT_TOKENS_MAX: u32 = 1_024;
/// Longest time a request waits for a free slot.
pub const SLOT_WAIT_MS_MAX: u64 = 10_000;
/// Longest job, whatever the network allows.
pub const JOB_US_MAX: u64 = 10 * 60 * 1_000_000;

/// What a request would cost at most, and what it may.
#[derive(Clone, PartialEq, Debug)]
pub struct Quote {
    /// The rate in force.
    pub rate: ModelRate,
    /// Version of its card.
    pub card_version: u32,
    /// What prices are in.
    pub asset: Asset,
    /// Prompt tokens.
    pub input_units: u64,
    /// Bound on output tokens: the request's, or the default clamped to the credit.
    pub output_units_max: u32,
    /// Whether the request fixed it.
    pub is_fixed: bool,
    /// Worst-case cost, base units.
    pub projected: Amount,
    /// Spendable on this model now, base units.
    pub available: Amount,
    /// Longest time a job may take, microseconds.
    pub job_us_max: u64,
}

/// An admitted job with what its headers say.
pub(crate) struct Admitted {
    pub job: Job,
    pub quote: Quote,
    /// Spendable after the hold, base units.
    pub balance: Amount,
}

/// What is in force for a model and an account, read in one moment.
struct Terms {
    rate: ModelRate,
    card_version: u32,
    asset: Asset,
    available: Amount,
    job_us_max: u64,
}

/// Prompt token ids of a request.
pub(crate) fn tokenise(model: &ServedModel, request: &ChatRequest) -> Result<Vec<u32>, ApiError> {
    let messages: Vec<ChatMessage> = request
        .messages
        .iter()
        .map(|m| ChatMessage { role: m.role.clone(), content: m.content.clone() })
        .collect();
    kernels::prompt_ids(&model.tokenizer, &model.template, &messages).map_err(|error| match error {
        // Texts of the other kinds may quote the template's input.
        kernels::Error::InvalidMessage { what } => {
            ApiError::invalid("messages", "invalid_value", format!("{what}."))
        }
        _ => ApiError::invalid(
            "messages",
            "invalid_value",
            "The model's chat template does not take these messages.",
        ),
    })
}

/// Prices a request without doing it.
pub(crate) async fn quote(
    shared: &Shared,
    account: AccountId,
    request: &ChatRequest,
    input_units: u64,
) -> Result<Quote, ApiError> {
    let terms = terms(shared, account, &request.model).await?;
    let context = u64::from(terms.rate.context_tokens);
    let room = context.saturating_sub(input_units);
    let asked = request.max_tokens.map(u64::from);
    if room == 0 || asked.is_some_and(|asked| asked > room) {
        let asked = asked.unwrap_or(1);
        let text = format!(
            "This model's context is {context} tokens; the prompt has {input_units} and {asked} were asked for. Shorten the prompt or lower \"max_tokens\"."
        );
        return Err(ApiError::invalid("messages", "context_length_exceeded", text));
    }
    let bound = asked.unwrap_or_else(|| {
        let wanted = room.min(u64::from(DEFAULT_OUTPUT_TOKENS_MAX));
        wanted.min(affordable(&terms, input_units)).max(1)
    });
    let cost = |output: u64| price_ceil(terms.rate.price, terms.rate.per_units, input_units + output);
    let projected = cost(bound).ok_or_else(|| ApiError::internal("The price is out of range."))?;
    let Terms { rate, card_version, asset, available, job_us_max } = terms;
    let output_units_max = u32::try_from(bound).unwrap_or(u32::MAX);
    let is_fixed = asked.is_some();
    Ok(Quote {
        rate,
        card_version,
        asset,
        input_units,
        output_units_max,
        is_fixed,
        projected,
        available,
        job_us_max,
    })
}

/// Holds and dispatches, in one commit.
pub(crate) async fn admit(
    shared: &Shared,
    caller: &Principal,
    job: JobId,
    request: &ChatRequest,
    prompt_ids: Vec<u32>,
) -> Result<Admitted, ApiError> {
    let account = caller.account;
    let quote = quote(shared, account, request, prompt_ids.len() as u64).await?;
    if quote.projected > quote.available {
        return Err(refusals::insufficient(shared, &quote.asset, quote.projected, quote.available));
    }
    let mut body = body(job, request, prompt_ids, quote.output_units_max)?;
    let output_units_max = quote.output_units_max;
    let ask = turn::Ask { model: &request.model, account, prompt_ids: &body.prompt_ids, output_units_max };
    let chosen = turn::take(shared, ask).await?;
    let deadline_us = now_us().saturating_add(quote.job_us_max);
    let command = Admit {
        hold: HoldId(random_16()?),
        job,
        account,
        model: request.model.clone(),
        input_units: quote.input_units,
        output_units_max: u64::from(quote.output_units_max),
        deadline_us,
        node: chosen.node,
        body: body.commitment(),
        spender: caller.spender,
    };
    let outcome = match submit_admit(shared, account, command).await {
        Ok(outcome) => outcome,
        Err(error) => {
            shared.release(&chosen);
            shared.table().report(&chosen.node, Report::Neutral, now_us());
            return Err(refusals::api_error(shared, error, Some(&quote.asset)));
        }
    };
    body.sampling_key = sampling_key(body.seed, &job, &outcome.commit_hash);
    let held = held_amount(&outcome).unwrap_or(quote.projected);
    let balance = Amount(quote.available.0.saturating_sub(held.0));
    let delivery = if request.stream { Delivery::Stream } else { Delivery::Whole };
    let rate = quote.rate.clone();
    let job = Job { id: job, account, rate, body, chosen, deadline_us, delivery };
    Ok(Admitted { job, quote, balance })
}

async fn submit_admit(
    shared: &Shared,
    account: AccountId,
    admit: Admit,
) -> Result<Outcome, journal::SubmitError> {
    let key = IdempotencyKey::internal("admit", &[&admit.job.0]);
    let not_after_us = Some(admit.deadline_us);
    let command = Command { not_after_us, ..Command::new(key, Actor::Account(account), admit) };
    crate::delivery::submit_until_known(shared, command).await
}

fn held_amount(outcome: &Outcome) -> Option<Amount> {
    outcome.events.iter().find_map(|event| match &event.body {
        EventBody::HoldPlaced(placed) => Some(placed.amount),
        _ => None,
    })
}

fn body(
    job: JobId,
    request: &ChatRequest,
    prompt_ids: Vec<u32>,
    max_tokens: u32,
) -> Result<JobBody, ApiError> {
    Ok(JobBody {
        job,
        prompt_ids,
        messages: request.messages_raw.clone(),
        max_tokens,
        temperature_millionths: request.temperature_millionths,
        top_p_millionths: request.top_p_millionths,
        top_k: 0,
        seed: request.seed,
        // Of the commit that is to come; not part of the commitment.
        sampling_key: Hash32([0; 32]),
        stop: request.stop.clone(),
        salt: Hash32(random_32()?),
    })
}

async fn terms(shared: &Shared, account: AccountId, model: &str) -> Result<Terms, ApiError> {
    let name = model.to_owned();
    let now = now_us();
    let found = shared.client.read(move |state| {
        let card = query::rate_card(state, now)?;
        let rate = card.card.model(&name)?.clone();
        let asset = query::assets(state).get(rate.asset.0 as usize)?.clone();
        let available = spendable_on(&query::balance(state, account, now), &rate);
        let job_us_max = query::settings(state)?.job_deadline_us_max.min(JOB_US_MAX);
        Some(Terms { rate, card_version: card.card.version, asset, available, job_us_max })
    });
    let found = found.await.map_err(|error| refusals::api_error(shared, error, None))?;
    found.ok_or_else(|| ApiError::model_not_found(model))
}

/// What an account can spend on a model now: its grants in the rate's asset that cover the model.
pub(crate) fn spendable_on(balances: &[query::AssetBalance], rate: &ModelRate) -> Amount {
    let grants = balances.iter().filter(|b| b.asset == rate.asset).flat_map(|b| &b.grants);
    let covering = grants.filter(|g| g.scope.is_empty() || g.scope.contains(&rate.model));
    covering.map(|g| g.spendable).sum()
}

/// Output tokens that the credit covers beside the prompt.
fn affordable(terms: &Terms, input_units: u64) -> u64 {
    let Terms { rate, available, .. } = terms;
    if rate.price.0 <= 0 {
        return u64::MAX;
    }
    let units = available.0.saturating_mul(i128::from(rate.per_units)) / rate.price.0;
    u64::try_from(units).unwrap_or(if units < 0 { 0 } else { u64::MAX }).saturating_sub(input_units)
}
