//! The network's opening, its writers' terms, and its price lists: which card holds when, and what a card must satisfy.

use crate::apply::ApplyError;
use crate::command::{ChangeWriter, PublishRateCard};
use crate::decide::Plan;
use crate::economy;
use crate::preset;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::event::policy::{NetworkOpened, RateCardPublished, WriterChanged};
use protocol::id::Hash32;
use protocol::rate::{ModelRate, RateCard};

/// A card as it was published.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PublishedCard {
    /// The list.
    #[n(0)]
    pub card: RateCard,
    /// Its hash, as holds pin it.
    #[n(1)]
    pub hash: Hash32,
}

/// The card that prices holds placed at `now_us`: the highest version already effective.
pub(crate) fn in_force(state: &State, now_us: u64) -> Option<&PublishedCard> {
    state.cards.iter().rev().find(|published| published.card.effective_us <= now_us)
}

/// A card by its version; versions are dense from 1.
pub(crate) fn by_version(state: &State, version: u32) -> Option<&PublishedCard> {
    state.cards.get((version as usize).checked_sub(1)?)
}

pub(crate) fn decide_open_network(plan: &mut Plan, command: &NetworkOpened) -> Result<(), Refusal> {
    if plan.state.network.is_some() || plan.state.next_leaf != 0 {
        return Err(Refusal::NetworkAlreadyOpened {});
    }
    preset::check_network(command)
        .map_err(|detail| Refusal::SettingsInvalid { detail: detail.to_string() })?;
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn decide_change_writer(plan: &mut Plan, command: &ChangeWriter) -> Result<(), Refusal> {
    plan.emit(WriterChanged { epoch: plan.state.writer_epoch + 1, nonce: command.nonce });
    Ok(())
}

pub(crate) fn decide_publish(plan: &mut Plan, command: &PublishRateCard) -> Result<(), Refusal> {
    let card = &command.card;
    let expected = plan.state.cards.len() as u32 + 1;
    if card.version != expected {
        return Err(Refusal::RateCardVersion { expected, given: card.version });
    }
    if expected > 1 && card.effective_us < plan.now_us {
        return Err(Refusal::RateCardInThePast { effective_us: card.effective_us, now_us: plan.now_us });
    }
    if card.headroom_ppm > 1_000_000 {
        return Err(Refusal::RateInvalid { model: String::new(), detail: "headroom_ppm is above 1000000" });
    }
    if let Some(pair) = card.models.windows(2).find(|pair| pair[0].model >= pair[1].model) {
        return Err(Refusal::RateInvalid {
            model: pair[1].model.clone(),
            detail: "models must be sorted by name, no name twice",
        });
    }
    for rate in &card.models {
        check_rate(plan.state, card, rate)?;
    }
    if let Some(highest) = economy::bounties::highest(plan.state) {
        economy::bounties::check_card(card, highest)?;
    }
    plan.emit(RateCardPublished { card: card.clone(), hash: card.hash() });
    Ok(())
}

fn check_rate(state: &State, card: &RateCard, rate: &ModelRate) -> Result<(), Refusal> {
    let invalid = |detail| Err(Refusal::RateInvalid { model: rate.model.clone(), detail });
    if rate.model.is_empty() || rate.model.len() > preset::NAME_BYTES_MAX {
        return invalid("the model's name must have 1 to 128 bytes");
    }
    if rate.licence.trim().is_empty() || rate.licence.len() > preset::NAME_BYTES_MAX {
        return invalid("the licence must be the SPDX expression of the weights' open licence");
    }
    if rate.price.0 < 0 || rate.price.0 > preset::PRICE_MAX {
        return invalid("the price must be between 0 and 10^30 base units");
    }
    if rate.per_units == 0 || rate.context_tokens == 0 {
        return invalid("per_units and context_tokens must be at least 1");
    }
    if state.asset(rate.asset).is_none() {
        return Err(Refusal::AssetUnknown { asset: rate.asset });
    }
    let share_max_ppm = 1_000_000 - card.headroom_ppm;
    if rate.operator_share_ppm > share_max_ppm {
        return Err(Refusal::HeadroomTooSmall {
            model: rate.model.clone(),
            operator_share_ppm: rate.operator_share_ppm,
            headroom_ppm: card.headroom_ppm,
            share_max_ppm,
        });
    }
    Ok(())
}

pub(crate) fn apply_network_opened(state: &mut State, event: &NetworkOpened) -> Result<(), ApplyError> {
    state.network = Some(event.clone());
    Ok(())
}

pub(crate) fn apply_writer_changed(state: &mut State, event: &WriterChanged) -> Result<(), ApplyError> {
    if event.epoch != state.writer_epoch + 1 {
        return Err(ApplyError::Impossible("a writer's term grows by one"));
    }
    state.writer_epoch = event.epoch;
    Ok(())
}

pub(crate) fn apply_published(state: &mut State, event: &RateCardPublished) -> Result<(), ApplyError> {
    if event.card.version as usize != state.cards.len() + 1 {
        return Err(ApplyError::Impossible("rate card versions grow by one"));
    }
    if event.hash != event.card.hash() {
        return Err(ApplyError::Impossible("a rate card's hash is not its own"));
    }
    state.cards.push(PublishedCard { card: event.card.clone(), hash: event.hash });
    Ok(())
}
