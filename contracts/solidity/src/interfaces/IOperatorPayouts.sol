// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The operators' pot
/// @notice Holds what the vault has debited, and pays it out against Merkle roots of cumulative earnings.
/// All amounts are vault units: 1e-6 of a whole token.
interface IOperatorPayouts {
    /// @notice A payout root as posted with a settlement
    /// @param root Root over leaves (operator, cumulative units), laid out as OpenZeppelin's StandardMerkleTree
    /// @param activeAt The first time at which claims against it are paid
    /// @param disabled True once the guardian has refused it
    struct PayoutRoot {
        bytes32 root;
        uint40 activeAt;
        bool disabled;
    }

    /// @notice Thrown when somebody else than the vault books a settlement
    error NotVault(address caller, address vault);
    /// @notice Thrown when somebody else than the guardian disables a root
    error NotGuardian(address caller, address guardian);
    /// @notice Thrown when a root promises more than was ever funded
    error OverCommitted(uint256 rootTotal, uint256 funded);
    /// @notice Thrown when an epoch has no root
    error NoRoot(uint64 epoch);
    /// @notice Thrown when the guardian has disabled the epoch's root
    error RootIsDisabled(uint64 epoch);
    /// @notice Thrown when a root's delay has not passed yet
    error NotActiveYet(uint64 epoch, uint256 activeAt);
    /// @notice Thrown when a root is active already and can no longer be disabled
    error AlreadyActive(uint64 epoch, uint256 activeAt);
    /// @notice Thrown when the proof does not lead from the leaf to the epoch's root
    error BadProof(uint64 epoch, address operator, uint256 cumulative);
    /// @notice Thrown when the operator has been paid that much already
    error NothingToClaim(address operator, uint256 claimed, uint256 cumulative);
    /// @notice Thrown when the roots' leaves add up to more than the pot ever got
    error PotExceeded(uint256 claimedTotal, uint256 funded);

    /// @notice A root was posted; it can be claimed against from `activeAt` on
    event RootPosted(uint64 indexed epoch, bytes32 root, uint256 rootTotal, uint256 funded, uint256 activeAt);
    /// @notice The guardian refused a root before it became active
    event RootDisabled(uint64 indexed epoch);
    /// @notice An operator's earnings were paid: `units` now, `cumulative` in all
    event Claimed(address indexed operator, address indexed payee, uint256 units, uint256 cumulative);
    /// @notice An operator chose where it is paid
    event PayeeSet(address indexed operator, address payee);

    /// @notice Units ever received from the vault
    function funded() external view returns (uint128);

    /// @notice Units ever paid out
    function claimedTotal() external view returns (uint128);

    /// @notice Units ever paid for one operator
    function claimedOf(address operator) external view returns (uint256);

    /// @notice Where an operator is paid; zero means at the operator's own address
    function payeeOf(address operator) external view returns (address);

    /// @notice The root posted for an epoch
    function rootOf(uint64 epoch) external view returns (PayoutRoot memory);

    /// @notice The Merkle leaf of one operator's cumulative earnings
    function leafOf(address operator, uint256 cumulative) external pure returns (bytes32);

    /// @notice Books a settlement whose tokens have already arrived; only the vault
    /// @param epoch The settlement's epoch
    /// @param added Units that came with it
    /// @param root The payout root, or zero for a settlement that only debits
    /// @param rootTotal The sum of all leaves of `root`
    function onSettle(uint64 epoch, uint256 added, bytes32 root, uint256 rootTotal) external;

    /// @notice Refuses a root for good before it becomes active; only the guardian
    function disableRoot(uint64 epoch) external;

    /// @notice Chooses where the caller is paid from now on
    function setPayee(address payee) external;

    /// @notice Pays an operator what the epoch's root proves and has not been paid yet; anybody may call
    /// @return units What was paid now
    function claim(uint64 epoch, address operator, uint256 cumulative, bytes32[] calldata proof)
        external
        returns (uint256 units);
}
