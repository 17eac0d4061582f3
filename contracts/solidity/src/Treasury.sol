// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {OperatorPayouts} from "./OperatorPayouts.sol";
import {IAllotmentBounds} from "./interfaces/IAllotmentBounds.sol";
import {ITreasury} from "./interfaces/ITreasury.sol";

/// @title Treasury
/// @notice See {ITreasury}. Immutable: no upgrade, no pause. Funded by plain transfers to its address.
/// @dev Does not check: that a day's work was done (the commitment, the receipts and the log are for that; the reserve
/// bounds the loss, the pot's guardian has the root's delay). Expects a token without fees on transfer.
/// Keep: `reserved` is the sum of what open days have left, and never exceeds the treasury's token balance.
contract Treasury is ITreasury {
    using SafeERC20 for IERC20;

    // ---------------------------------------------------------------- constants

    /// @notice After this time a day's payments are over and the rest is free again
    uint32 public constant CLOSING_DELAY = 7 days;
    uint8 private constant UNIT_DECIMALS = 6;
    uint8 private constant DECIMALS_MAX = 18;

    // ------------------------------------------------------------------ storage

    /// @notice The hot key that opens days and pays
    address public settler;
    /// @notice The last opened day
    uint64 public lastDay;
    /// @notice The last payment's epoch
    uint64 public lastEpoch;
    /// @notice Units that open days have left
    uint128 public reserved;
    mapping(uint64 day => Day) private _days;

    // --------------------------------------------------------------- immutables

    /// @notice The token that workers are paid in
    IERC20 public immutable token;
    /// @notice The workers' pot
    OperatorPayouts public immutable payouts;
    /// @notice The cold identity that appoints the settler
    address public immutable coordinator;
    /// @notice Who alone releases what is not reserved
    address public immutable governor;
    /// @notice What stakers voted a day may cost
    IAllotmentBounds public immutable bounds;
    /// @notice Token base units in one unit
    uint256 public immutable UNIT;

    // -------------------------------------------------------------- constructor

    /// @notice Who is who
    struct Roles {
        address coordinator;
        address settler;
        address guardian;
        address governor;
    }

    constructor(IERC20 token_, IAllotmentBounds bounds_, Roles memory roles, uint32 rootDelay) {
        uint8 decimals = IERC20Metadata(address(token_)).decimals();
        if (decimals < UNIT_DECIMALS || decimals > DECIMALS_MAX) revert UnsupportedDecimals(decimals);
        if (roles.coordinator == address(0) || roles.settler == address(0)) revert ZeroAddress();
        if (roles.guardian == address(0) || roles.governor == address(0)) revert ZeroAddress();
        token = token_;
        bounds = bounds_;
        coordinator = roles.coordinator;
        settler = roles.settler;
        governor = roles.governor;
        UNIT = 10 ** (decimals - UNIT_DECIMALS);
        payouts = new OperatorPayouts(token_, roles.guardian, UNIT, rootDelay);
        emit SettlerAppointed(roles.settler);
    }

    // -------------------------------------------------------------------- reads

    /// @inheritdoc ITreasury
    function free() public view returns (uint256) {
        return token.balanceOf(address(this)) / UNIT - reserved;
    }

    /// @inheritdoc ITreasury
    function dayOf(uint64 day) external view returns (Day memory) {
        return _days[day];
    }

    // --------------------------------------------------------------------- days

    /// @inheritdoc ITreasury
    function openDay(uint64 day, uint64 pool) external {
        _requireSettler();
        if (day <= lastDay) revert WrongDay(lastDay, day);
        uint64 ceiling = bounds.ceiling();
        if (pool > ceiling) revert AboveCeiling(pool, ceiling);
        uint256 available = free();
        if (pool > available) revert NotCovered(available, pool);
        lastDay = day;
        reserved += pool;
        _days[day] = Day({left: pool, openedAt: uint64(block.timestamp)});
        emit DayOpened(day, pool, available - pool);
    }

    /// @inheritdoc ITreasury
    function pay(uint64 epoch, uint64 day, uint64 units, bytes32 root, uint64 rootTotal, bytes32 commitment) external {
        _requireSettler();
        if (epoch != lastEpoch + 1) revert WrongEpoch(lastEpoch + 1, epoch);
        Day storage open = _days[day];
        if (open.openedAt == 0) revert DayNotOpen(day);
        if (units > open.left) revert ReserveExceeded(day, open.left, units);
        lastEpoch = epoch;
        open.left -= units;
        reserved -= units;
        emit DayPaid(day, epoch, units, open.left, root, commitment);
        if (units != 0) token.safeTransfer(address(payouts), units * UNIT);
        payouts.onSettle(epoch, units, root, rootTotal);
    }

    /// @inheritdoc ITreasury
    function closeDay(uint64 day) external {
        Day storage open = _days[day];
        if (open.openedAt == 0) revert DayNotOpen(day);
        uint256 closableAt = open.openedAt + CLOSING_DELAY;
        if (block.timestamp < closableAt) revert NotClosable(day, closableAt);
        uint128 unspent = open.left;
        open.left = 0;
        reserved -= unspent;
        emit DayClosed(day, unspent);
    }

    // -------------------------------------------------------- governor, coordinator

    /// @inheritdoc ITreasury
    function release(address to, uint64 units) external {
        if (msg.sender != governor) revert NotGovernor(msg.sender, governor);
        if (to == address(0) || to == address(this)) revert BadRecipient(to);
        uint256 available = free();
        if (units > available) revert NotCovered(available, units);
        emit Released(to, units);
        token.safeTransfer(to, units * UNIT);
    }

    /// @inheritdoc ITreasury
    function setSettler(address newSettler) external {
        if (msg.sender != coordinator) revert NotCoordinator(msg.sender, coordinator);
        if (newSettler == address(0)) revert ZeroAddress();
        settler = newSettler;
        emit SettlerAppointed(newSettler);
    }

    // ------------------------------------------------------------------ private

    function _requireSettler() private view {
        if (msg.sender != settler) revert NotSettler(msg.sender, settler);
    }
}
