//! Operators and their nodes: who earns, who may be given a job. Payout addresses are one to one with accounts,
//! because a claim is found by its address.

use crate::accounts::{AccountNo, open_account};
use crate::apply::ApplyError;
use crate::command::RetireNode;
use crate::decide::Plan;
use crate::economy::conduct;
use crate::preset::NAME_BYTES_MAX;
use crate::refusal::Refusal;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::event::node::{NodeRegistered, NodeRetired, OperatorRegistered};
use protocol::id::{AccountId, EvmAddress, NodeId, OperatorId, SealingKey};
use std::collections::BTreeMap;

/// Most models one node may declare.
pub const NODE_MODELS_MAX: usize = 64;

/// An operator's dense number, in the order of registration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct OperatorNo(#[n(0)] pub(crate) u32);

/// One operator.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Operator {
    #[n(0)]
    pub(crate) id: OperatorId,
    #[n(1)]
    pub(crate) account: AccountId,
    #[n(2)]
    pub(crate) account_no: AccountNo,
    #[n(3)]
    pub(crate) payout_address: EvmAddress,
}

/// Every operator, by number and by id.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Operators {
    #[n(0)]
    rows: Vec<Operator>,
    #[cbor(skip)]
    index: BTreeMap<OperatorId, OperatorNo>,
}

impl std::ops::Index<OperatorNo> for Operators {
    type Output = Operator;
    fn index(&self, number: OperatorNo) -> &Operator {
        &self.rows[number.0 as usize]
    }
}

impl Operators {
    pub(crate) fn find(&self, id: &OperatorId) -> Option<OperatorNo> {
        self.index.get(id).copied()
    }

    pub(crate) fn get(&self, id: &OperatorId) -> Option<&Operator> {
        self.find(id).map(|number| &self[number])
    }

    pub(crate) fn contains_key(&self, id: &OperatorId) -> bool {
        self.index.contains_key(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Operator> {
        self.rows.iter()
    }

    /// By id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &OperatorId> {
        self.index.keys()
    }

    fn add(&mut self, row: Operator) -> Result<(), ApplyError> {
        let number = OperatorNo(self.rows.len() as u32);
        if self.index.insert(row.id, number).is_some() {
            return Err(ApplyError::Impossible("an operator registers twice"));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        self.index = self.rows.iter().zip(0..).map(|(row, number)| (row.id, OperatorNo(number))).collect();
        if self.index.len() == self.rows.len() { Ok(()) } else { Err("an operator is there twice") }
    }
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Node {
    #[n(0)]
    pub(crate) operator: OperatorId,
    #[n(1)]
    pub(crate) models: Vec<String>,
    #[n(2)]
    pub(crate) slots: u32,
    #[n(3)]
    pub(crate) sealing_key: SealingKey,
    #[n(4)]
    pub(crate) retired: bool,
}

/// A node that may be given a job of a model.
pub(crate) fn serving<'a>(state: &'a State, node: NodeId, model: &str) -> Result<&'a Node, Refusal> {
    let row = state.nodes.get(&node).ok_or(Refusal::NodeUnknown { node })?;
    if row.retired {
        return Err(Refusal::NodeIsRetired { node });
    }
    if row.models.binary_search_by(|name| name.as_str().cmp(model)).is_err() {
        return Err(Refusal::ModelNotServed { node, model: model.to_owned() });
    }
    conduct::check_dispatch(state, &row.operator)?;
    Ok(row)
}

pub(crate) fn decide_register_operator(plan: &mut Plan, command: &OperatorRegistered) -> Result<(), Refusal> {
    let OperatorRegistered { operator, account, payout_address } = *command;
    open_account(plan.state, account)?;
    if plan.state.operators.contains_key(&operator) {
        return Err(Refusal::OperatorKnown { operator });
    }
    let platform = plan.state.vaults.values().any(|vault| vault.platform == payout_address);
    let mut others = plan.state.operators.values();
    let clash = others.any(|o| (o.account == account) != (o.payout_address == payout_address));
    if platform || clash {
        return Err(Refusal::PayoutAddressTaken { address: payout_address });
    }
    plan.emit(command.clone());
    Ok(())
}

pub(crate) fn decide_register_node(plan: &mut Plan, command: &NodeRegistered) -> Result<(), Refusal> {
    let operator = command.operator;
    if !plan.state.operators.contains_key(&operator) {
        return Err(Refusal::OperatorUnknown { operator });
    }
    if let Some(known) = plan.state.nodes.get(&command.node) {
        if known.operator != operator {
            return Err(Refusal::NodeOfAnother { node: command.node, operator: known.operator });
        }
        if known.retired {
            return Err(Refusal::NodeIsRetired { node: command.node });
        }
    }
    let sorted = command.models.windows(2).all(|pair| pair[0] < pair[1]);
    let named = command.models.iter().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    if !sorted || !named || command.models.is_empty() || command.models.len() > NODE_MODELS_MAX {
        return Err(Refusal::NodeInvalid { detail: "models must be 1 to 64 names, sorted, none twice" });
    }
    if command.slots == 0 {
        return Err(Refusal::NodeInvalid { detail: "slots must be at least 1" });
    }
    plan.emit(command.clone());
    conduct::plan_switch(plan, command);
    Ok(())
}

pub(crate) fn decide_retire_node(plan: &mut Plan, command: &RetireNode) -> Result<(), Refusal> {
    let node = command.node;
    let known = plan.state.nodes.get(&node).ok_or(Refusal::NodeUnknown { node })?;
    if known.retired {
        return Err(Refusal::NodeIsRetired { node });
    }
    plan.emit(NodeRetired { node });
    Ok(())
}

pub(crate) fn apply_operator_registered(
    state: &mut State,
    event: &OperatorRegistered,
) -> Result<(), ApplyError> {
    let account_no = state.account_no(event.account)?;
    let OperatorRegistered { operator: id, account, payout_address } = *event;
    state.operators.add(Operator { id, account, account_no, payout_address })
}

pub(crate) fn apply_node_registered(state: &mut State, event: &NodeRegistered) -> Result<(), ApplyError> {
    if !state.operators.contains_key(&event.operator) {
        return Err(ApplyError::unknown("operator", event.operator));
    }
    let row = Node {
        operator: event.operator,
        models: event.models.clone(),
        slots: event.slots,
        sealing_key: event.sealing_key,
        retired: false,
    };
    state.nodes.insert(event.node, row);
    Ok(())
}

pub(crate) fn apply_node_retired(state: &mut State, event: &NodeRetired) -> Result<(), ApplyError> {
    let node = state.nodes.get_mut(&event.node);
    node.ok_or_else(|| ApplyError::unknown("node", event.node))?.retired = true;
    Ok(())
}
