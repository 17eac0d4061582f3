//! From a parsed request to a committed hold and dispatch: count, price the worst case, choose a node, one `Admit`.
//! Checks in this order: model (404), prompt and bounds (400), credit (402), a node (503).

use crate::access::{random_16, random_32};
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::refusals;
use crate::api::request::{ChatRequest, Prompt};
use crate::clock::now_us;
use crate::gateway::{ServedModel, Shared};
use crate::job::Job;
use crate::router::Report;
use crate::turn;
use journal::Outcome;
use ledger::command::{Admit, Command};
use ledger::query;
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::Actor;
use protocol::event::grant::GrantSource;
use protocol::id::{AccountId, Hash32, HoldId, IdempotencyKey, JobId};
use protocol::job_message::{JobBody, sampling_key};
use protocol::rate::{ModelRate, Unit, price_ceil};

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
    /// When the account's allotment is given anew, microseconds UTC.
    pub refresh_us: Option<u64>,
}

impl Quote {
    /// Seconds until the allotment is given anew.
    pub fn refresh_in_s(&self) -> Option<u64> {
        self.refresh_us.map(|at| at.saturating_sub(now_us()).div_ceil(1_000_000))
    }

    /// Tokens that an amount pays for at this rate.
    pub fn units_for(&self, amount: Amount) -> u64 {
        units_for(&self.rate, amount)
    }
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
    refresh_us: Option<u64>,
}

/// Prompt token ids of every prompt of a request.
pub(crate) fn tokenise_all(model: &ServedModel, request: &ChatRequest) -> Result<Vec<Vec<u32>>, ApiError> {
    request.prompts.iter().map(|prompt| tokenise(model, request, prompt)).collect()
}

fn tokenise(model: &ServedModel, request: &ChatRequest, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    let messages = match prompt {
        Prompt::Text(text) => {
            let ids = model.tokenizer.encode(text);
            return if ids.is_empty() { Err(outside("prompt", "a text that is not empty")) } else { Ok(ids) };
        }
        Prompt::Ids(ids) => {
            let count = model.tokenizer.vocabulary_size();
            return match ids.iter().find(|id| **id >= count) {
                Some(_) => Err(outside("prompt", &format!("token ids below {count}, this model's"))),
                None => Ok(ids.clone()),
            };
        }
        Prompt::Chat(messages) => messages,
    };
    let (messages, tools) = request.tools.tell(&model.template, messages);
    let ids = kernels::prompt_ids_with_tools(&model.tokenizer, &model.template, &messages, &tools);
    ids.map_err(|error| match error {
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

fn outside(param: &str, expected: &str) -> ApiError {
    ApiError::invalid(param, "invalid_value", format!("{param:?} must be {expected}."))
}

/// Prices every choice of a request, in order, without doing it.
pub(crate) async fn quote_all(
    shared: &Shared,
    account: AccountId,
    request: &ChatRequest,
    prompts: &[Vec<u32>],
) -> Result<Vec<Quote>, ApiError> {
    let terms = terms(shared, account, &request.model).await?;
    if terms.rate.unit != Unit::Token {
        let text = format!("{:?} is not a language model; GET /v1/models says what it is.", request.model);
        return Err(ApiError::invalid("model", "model_not_suitable", text));
    }
    if let Some(served) = shared.models.get(&request.model) {
        check_biases(served, request)?;
    }
    let each = prompts.iter().map(|ids| quote(&terms, request, ids.len() as u64));
    let each: Vec<Quote> = each.collect::<Result<_, _>>()?;
    let times = request.n as usize;
    Ok(each.into_iter().flat_map(|quote| std::iter::repeat_n(quote, times)).collect())
}

fn check_biases(model: &ServedModel, request: &ChatRequest) -> Result<(), ApiError> {
    let count = model.tokenizer.vocabulary_size();
    match request.controls.logit_bias.iter().find(|(id, _)| *id >= count) {
        Some((id, _)) => Err(outside("logit_bias", &format!("of token ids below {count}, not {id}"))),
        None => Ok(()),
    }
}

fn quote(terms: &Terms, request: &ChatRequest, input_units: u64) -> Result<Quote, ApiError> {
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
        wanted.min(affordable(terms, input_units, request.choices())).max(1)
    });
    let cost = |output: u64| price_ceil(terms.rate.price, terms.rate.per_units, input_units + output);
    let projected = cost(bound).ok_or_else(|| ApiError::internal("The price is out of range."))?;
    Ok(Quote {
        rate: terms.rate.clone(),
        card_version: terms.card_version,
        asset: terms.asset.clone(),
        input_units,
        output_units_max: u32::try_from(bound).unwrap_or(u32::MAX),
        is_fixed: asked.is_some(),
        projected,
        available: terms.available,
        job_us_max: terms.job_us_max,
        refresh_us: terms.refresh_us,
    })
}

/// One choice of a request, priced.
pub(crate) struct Admission {
    /// Its place among the choices.
    pub choice: u32,
    /// What the model goes on from.
    pub prompt_ids: Vec<u32>,
    /// What it may cost.
    pub quote: Quote,
}

/// Holds and dispatches, in one commit.
pub(crate) async fn admit(
    shared: &Shared,
    caller: &Principal,
    job: JobId,
    request: &ChatRequest,
    admission: Admission,
) -> Result<Admitted, ApiError> {
    let Admission { choice, prompt_ids, quote } = admission;
    let account = caller.account;
    let mut body = body(job, request, prompt_ids, quote.output_units_max)?;
    body.seed = request.seed_of(choice);
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
            return Err(refusals::admission_error(shared, error, &quote));
        }
    };
    body.sampling_key = sampling_key(body.seed, &job, &outcome.commit_hash);
    let held = held_amount(&outcome).unwrap_or(quote.projected);
    let before = Amount(quote.available.0.saturating_sub(quote.projected.0 * i128::from(choice)));
    let balance = Amount(before.0.saturating_sub(held.0));
    let rate = quote.rate.clone();
    let job = Job { id: job, account, rate, body, chosen, deadline_us, delivery: request.delivery() };
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
        temperature_millionths: request.sampling.temperature_millionths,
        top_p_millionths: request.sampling.top_p_millionths,
        top_k: request.sampling.top_k,
        seed: None,
        // Of the commit that is to come; not part of the commitment.
        sampling_key: Hash32([0; 32]),
        stop: request.sampling.stop.clone(),
        controls: request.controls.clone(),
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
        let balances = query::balance(state, account, now);
        let available = spendable_on(&balances, &rate);
        let refresh_us = refresh_us(&balances, now);
        let job_us_max = query::settings(state)?.job_deadline_us_max.min(JOB_US_MAX);
        Some(Terms { rate, card_version: card.card.version, asset, available, job_us_max, refresh_us })
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

/// When the first allotment of these ends and the next is given.
fn refresh_us(balances: &[query::AssetBalance], now_us: u64) -> Option<u64> {
    let grants = balances.iter().flat_map(|balance| &balance.grants);
    let allotments = grants.filter(|grant| grant.source == GrantSource::Allotment);
    allotments.filter_map(|grant| grant.expires_us).filter(|at| *at > now_us).min()
}

/// Output tokens that the credit covers beside the prompt, in each of so many choices.
fn affordable(terms: &Terms, input_units: u64, choices: u32) -> u64 {
    let each = Amount(terms.available.0 / i128::from(choices.max(1)));
    units_for(&terms.rate, each).saturating_sub(input_units)
}

fn units_for(rate: &ModelRate, amount: Amount) -> u64 {
    if rate.price.0 <= 0 {
        return u64::MAX;
    }
    let units = amount.0.saturating_mul(i128::from(rate.per_units)) / rate.price.0;
    u64::try_from(units).unwrap_or(if units < 0 { 0 } else { u64::MAX })
}
