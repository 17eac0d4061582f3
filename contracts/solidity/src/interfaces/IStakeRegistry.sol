// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Stake of holders and operators
/// @notice Holds staked tokens, counts them as votes, and remembers how much each account had staked at any past time. Stake
/// cannot be transferred. Nobody but its owner can move it; there is no slashing. Amounts are token base units.
interface IStakeRegistry {
    /// @notice What an account is taking out
    /// @param amount Base units
    /// @param readyAt When they may be withdrawn
    struct Unbonding {
        uint208 amount;
        uint48 readyAt;
    }

    /// @notice Thrown when an amount may not be zero
    error ZeroAmount();
    /// @notice Thrown when the token delivered something else than was sent
    error WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice Thrown when more is unbonded than is staked
    error StakeTooSmall(address account, uint256 staked, uint256 asked);
    /// @notice Thrown when nothing is being unbonded
    error NothingUnbonding(address account);
    /// @notice Thrown when the delay of an unbonding has not passed yet
    error UnbondingNotReady(uint256 readyAt);
    /// @notice Thrown when money would be sent to nobody or to the registry itself
    error BadRecipient(address to);
    /// @notice Thrown when a delay exceeds what stakers may be asked to wait
    error DelayTooLong(uint32 delay, uint32 longest);

    /// @notice `account` staked; `total` is all it has staked now
    event Staked(address indexed account, uint256 amount, uint256 total);
    /// @notice `account` takes `amount` out; `total` is all it has staked now
    event UnbondingStarted(address indexed account, uint256 amount, uint256 total, uint256 readyAt);
    /// @notice `account` has taken out what it unbonded
    event UnbondingFinished(address indexed account, address indexed to, uint256 amount);

    /// @notice The stake from which an account is eligible
    function minimumStake() external view returns (uint256);

    /// @notice What an account has staked now
    function stakeOf(address account) external view returns (uint256);

    /// @notice What an account had staked at the end of a past second
    function pastStakeOf(address account, uint256 timepoint) external view returns (uint256);

    /// @notice Each account's stake at the end of a past second, zero below the minimum; and all stake together, which
    /// includes what is below the minimum. Ask with the timestamp of a block for the stake at that block.
    function eligibleStakeAt(address[] calldata accounts, uint256 timepoint)
        external
        view
        returns (uint256[] memory stakes, uint256 total);

    /// @notice What an account is taking out
    function unbondingOf(address account) external view returns (Unbonding memory);

    /// @notice Stakes the caller's approved tokens; they vote for the caller unless it has chosen a delegate
    function stake(uint256 amount) external;

    /// @notice Starts taking out; the amount counts no longer from now on. What was being taken out waits for the new date
    function unbond(uint256 amount) external;

    /// @notice Pays out what was unbonded, once the delay has passed
    function withdraw(address to) external;
}
