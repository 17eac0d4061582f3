// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICheckpointAnchor} from "./interfaces/ICheckpointAnchor.sol";

/// @title CheckpointAnchor
/// @notice See {ICheckpointAnchor}.
/// @dev Does not check: that a head extends the one before it (needs a consistency proof, which auditors check off-chain).
contract CheckpointAnchor is ICheckpointAnchor {
    // ------------------------------------------------------------------ storage

    mapping(address publisher => mapping(bytes32 origin => Head)) private _heads;

    // ---------------------------------------------------------------- functions

    /// @inheritdoc ICheckpointAnchor
    function headOf(address publisher, bytes32 origin) external view returns (Head memory) {
        return _heads[publisher][origin];
    }

    /// @inheritdoc ICheckpointAnchor
    function anchor(bytes32 origin, uint64 size, bytes32 root) external {
        Head storage head = _heads[msg.sender][origin];
        if (size <= head.size) revert NotGrowing(head.size, size);
        head.root = root;
        head.size = size;
        head.anchoredAt = uint64(block.timestamp);
        emit Anchored(msg.sender, origin, size, root);
    }
}
