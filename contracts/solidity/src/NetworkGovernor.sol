// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {GovernorCountingSimple} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {GovernorVotesQuorumFraction} from
    "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {AllotmentBounds} from "./AllotmentBounds.sol";

/// @title NetworkGovernor
/// @notice Stakers vote, with the stake they had when a vote began, on the allotment's bounds and on what leaves the
/// treasury. OpenZeppelin's Governor as it is; it deploys the parameter that it governs.
/// @dev Does not check: what a proposal does. It owns nothing but the right to change the bounds and to release what
/// the treasury has not reserved; users' deposits and operators' pots are out of its reach.
contract NetworkGovernor is
    Governor,
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotes,
    GovernorVotesQuorumFraction
{
    /// @notice How a network votes
    /// @param votingDelay Seconds between proposal and snapshot
    /// @param votingPeriod Seconds that a vote takes
    /// @param proposalThreshold Votes that a proposer needs
    /// @param quorumPercent Percent of all stake that must take part
    /// @param floor The first lower bound, see {IAllotmentBounds}
    /// @param ceiling The first upper bound
    struct Options {
        uint48 votingDelay;
        uint32 votingPeriod;
        uint256 proposalThreshold;
        uint8 quorumPercent;
        uint64 floor;
        uint64 ceiling;
    }

    /// @notice The parameter that votes change
    AllotmentBounds public immutable bounds;

    constructor(IVotes registry, Options memory options)
        Governor("Counterfoil NetworkGovernor")
        GovernorSettings(options.votingDelay, options.votingPeriod, options.proposalThreshold)
        GovernorVotes(registry)
        GovernorVotesQuorumFraction(options.quorumPercent)
    {
        bounds = new AllotmentBounds(address(this), options.floor, options.ceiling);
    }

    /// @notice Votes that a proposer needs
    function proposalThreshold() public view override(Governor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }
}
