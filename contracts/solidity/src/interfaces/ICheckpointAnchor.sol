// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Heads of transparency logs, kept where the log's owner cannot rewrite them
/// @notice Anybody may anchor; a head belongs to its publisher and origin. There is no administrator.
interface ICheckpointAnchor {
    /// @notice A log's head as last anchored
    /// @param root The RFC 6962 tree head
    /// @param size The count of leaves under `root`
    /// @param anchoredAt The time of the block that holds it
    struct Head {
        bytes32 root;
        uint64 size;
        uint64 anchoredAt;
    }

    /// @notice Thrown when a head does not grow its log
    error NotGrowing(uint64 anchoredSize, uint64 offeredSize);

    /// @notice A head was anchored
    event Anchored(address indexed publisher, bytes32 indexed origin, uint64 size, bytes32 root);

    /// @notice The last head of a publisher's log
    function headOf(address publisher, bytes32 origin) external view returns (Head memory);

    /// @notice Anchors a head of the caller's own log
    /// @param origin keccak256 of the origin line of the log's checkpoints
    /// @param size The count of leaves, more than the last time
    /// @param root The tree head over them
    function anchor(bytes32 origin, uint64 size, bytes32 root) external;
}
