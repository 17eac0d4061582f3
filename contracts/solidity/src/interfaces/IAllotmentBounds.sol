// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Bounds of the daily allotment
/// @notice The one network parameter that stakers change by vote. Amounts are units, 1e-6 of a whole payout token.
interface IAllotmentBounds {
    /// @notice Thrown when somebody else than the governor changes the bounds
    error NotGovernor(address caller, address governor);
    /// @notice Thrown when the lower bound exceeds the upper one
    error BoundsCrossed(uint64 floor, uint64 ceiling);

    /// @notice The pool of a day that opens from now on lies between `floor` and `ceiling`
    event BoundsChanged(uint64 floor, uint64 ceiling);

    /// @notice The smallest pool that a day is meant to have, reserve permitting
    function floor() external view returns (uint64);

    /// @notice The largest pool that a day may have: the most that a day can cost
    function ceiling() external view returns (uint64);

    /// @notice Changes both bounds; only the governor
    function setBounds(uint64 newFloor, uint64 newCeiling) external;
}
