// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Votes} from "@openzeppelin/contracts/governance/utils/Votes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";
import {IStakeRegistry} from "./interfaces/IStakeRegistry.sol";

/// @title StakeRegistry
/// @notice See {IStakeRegistry}. Immutable: no upgrade, no pause, no owner. Votes by timestamp (ERC-6372).
/// @dev Does not check: who an account is (splitting below the minimum loses eligibility, see the allotment's rules).
/// Keep: all stake and all unbonding together never exceed the registry's token balance.
contract StakeRegistry is IStakeRegistry, Votes, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using Checkpoints for Checkpoints.Trace208;

    // ---------------------------------------------------------------- constants

    /// @notice The longest delay that a deployer may choose
    uint32 public constant LONGEST_DELAY = 60 days;

    // ------------------------------------------------------------------ storage

    mapping(address account => Checkpoints.Trace208) private _stakes;
    mapping(address account => Unbonding) private _unbondings;

    // --------------------------------------------------------------- immutables

    /// @notice The staked token
    IERC20 public immutable token;
    /// @inheritdoc IStakeRegistry
    uint256 public immutable minimumStake;
    /// @notice Seconds between the start of an unbonding and its payment
    uint32 public immutable unbondDelay;

    // -------------------------------------------------------------- constructor

    constructor(IERC20 token_, uint256 minimumStake_, uint32 unbondDelay_) EIP712("Counterfoil StakeRegistry", "1") {
        if (unbondDelay_ > LONGEST_DELAY) revert DelayTooLong(unbondDelay_, LONGEST_DELAY);
        token = token_;
        minimumStake = minimumStake_;
        unbondDelay = unbondDelay_;
    }

    // -------------------------------------------------------------------- reads

    /// @inheritdoc IStakeRegistry
    function stakeOf(address account) public view returns (uint256) {
        return _stakes[account].latest();
    }

    /// @inheritdoc IStakeRegistry
    function pastStakeOf(address account, uint256 timepoint) external view returns (uint256) {
        return _stakes[account].upperLookupRecent(_validateTimepoint(timepoint));
    }

    /// @inheritdoc IStakeRegistry
    function eligibleStakeAt(address[] calldata accounts, uint256 timepoint)
        external
        view
        returns (uint256[] memory stakes, uint256 total)
    {
        uint48 second = _validateTimepoint(timepoint);
        stakes = new uint256[](accounts.length);
        for (uint256 i; i < accounts.length; ++i) {
            uint256 staked = _stakes[accounts[i]].upperLookupRecent(second);
            if (staked >= minimumStake) stakes[i] = staked;
        }
        total = getPastTotalSupply(timepoint);
    }

    /// @inheritdoc IStakeRegistry
    function unbondingOf(address account) external view returns (Unbonding memory) {
        return _unbondings[account];
    }

    /// @notice Timepoints are seconds
    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    /// @notice Timepoints are seconds, in ERC-6372's words
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    // ------------------------------------------------------------------- stakes

    /// @inheritdoc IStakeRegistry
    function stake(uint256 amount) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        uint256 held = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - held;
        if (received != amount) revert WrongAmountReceived(amount, received);
        // Votes count only when delegated; whoever never chose votes for itself.
        if (delegates(msg.sender) == address(0)) _delegate(msg.sender, msg.sender);
        uint256 total = stakeOf(msg.sender) + amount;
        _setStake(msg.sender, total);
        _transferVotingUnits(address(0), msg.sender, amount);
        emit Staked(msg.sender, amount, total);
    }

    /// @inheritdoc IStakeRegistry
    function unbond(uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        uint256 staked = stakeOf(msg.sender);
        if (amount > staked) revert StakeTooSmall(msg.sender, staked, amount);
        _setStake(msg.sender, staked - amount);
        _transferVotingUnits(msg.sender, address(0), amount);
        Unbonding storage unbonding = _unbondings[msg.sender];
        unbonding.amount += SafeCast.toUint208(amount);
        unbonding.readyAt = clock() + unbondDelay;
        emit UnbondingStarted(msg.sender, amount, staked - amount, unbonding.readyAt);
    }

    /// @inheritdoc IStakeRegistry
    function withdraw(address to) external nonReentrant {
        if (to == address(0) || to == address(this)) revert BadRecipient(to);
        Unbonding memory unbonding = _unbondings[msg.sender];
        if (unbonding.amount == 0) revert NothingUnbonding(msg.sender);
        if (clock() < unbonding.readyAt) revert UnbondingNotReady(unbonding.readyAt);
        delete _unbondings[msg.sender];
        emit UnbondingFinished(msg.sender, to, unbonding.amount);
        token.safeTransfer(to, unbonding.amount);
    }

    // ------------------------------------------------------------------ private

    function _setStake(address account, uint256 staked) private {
        _stakes[account].push(clock(), SafeCast.toUint208(staked));
    }

    function _getVotingUnits(address account) internal view override returns (uint256) {
        return stakeOf(account);
    }
}
