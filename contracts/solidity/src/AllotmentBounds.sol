// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IAllotmentBounds} from "./interfaces/IAllotmentBounds.sol";

/// @title AllotmentBounds
/// @notice See {IAllotmentBounds}.
/// @dev Does not check: that bounds are wise; days that are open keep the pool they opened with.
contract AllotmentBounds is IAllotmentBounds {
    // ------------------------------------------------------------------ storage

    /// @inheritdoc IAllotmentBounds
    uint64 public floor;
    /// @inheritdoc IAllotmentBounds
    uint64 public ceiling;

    // --------------------------------------------------------------- immutables

    /// @notice Who alone may change the bounds
    address public immutable governor;

    // ---------------------------------------------------------------- functions

    constructor(address governor_, uint64 floor_, uint64 ceiling_) {
        governor = governor_;
        _set(floor_, ceiling_);
    }

    /// @inheritdoc IAllotmentBounds
    function setBounds(uint64 newFloor, uint64 newCeiling) external {
        if (msg.sender != governor) revert NotGovernor(msg.sender, governor);
        _set(newFloor, newCeiling);
    }

    function _set(uint64 newFloor, uint64 newCeiling) private {
        if (newFloor > newCeiling) revert BoundsCrossed(newFloor, newCeiling);
        floor = newFloor;
        ceiling = newCeiling;
        emit BoundsChanged(newFloor, newCeiling);
    }
}
