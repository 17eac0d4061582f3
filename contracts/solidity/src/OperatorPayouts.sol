// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {IOperatorPayouts} from "./interfaces/IOperatorPayouts.sol";

/// @title OperatorPayouts
/// @notice See {IOperatorPayouts}. A contract of its own, so that a fault in claims cannot reach deposits.
/// @dev Does not check: that a root's leaves add up to its total (the tree is published, and the guardian has the
/// delay to refuse it); that figures grow from root to root (an older proof only claims less).
contract OperatorPayouts is IOperatorPayouts {
    using SafeERC20 for IERC20;

    // ------------------------------------------------------------------ storage

    /// @inheritdoc IOperatorPayouts
    uint128 public funded;
    /// @inheritdoc IOperatorPayouts
    uint128 public claimedTotal;
    /// @dev All roots stay: an old proof remains good when newer data is withheld.
    mapping(uint64 epoch => PayoutRoot) private _roots;
    /// @inheritdoc IOperatorPayouts
    mapping(address operator => uint256) public claimedOf;
    /// @inheritdoc IOperatorPayouts
    mapping(address operator => address) public payeeOf;

    // --------------------------------------------------------------- immutables

    /// @notice The token that is paid
    IERC20 public immutable token;
    /// @notice The vault that funds the pot, the deployer
    address public immutable vault;
    /// @notice Who may refuse a root before it becomes active
    address public immutable guardian;
    /// @notice Token base units in one vault unit
    uint256 public immutable UNIT;
    /// @notice Seconds between posting a root and its first claim
    uint32 public immutable rootDelay;

    // ---------------------------------------------------------------- functions

    constructor(IERC20 token_, address guardian_, uint256 unit_, uint32 rootDelay_) {
        token = token_;
        vault = msg.sender;
        guardian = guardian_;
        UNIT = unit_;
        rootDelay = rootDelay_;
    }

    /// @inheritdoc IOperatorPayouts
    function rootOf(uint64 epoch) external view returns (PayoutRoot memory) {
        return _roots[epoch];
    }

    /// @inheritdoc IOperatorPayouts
    function onSettle(uint64 epoch, uint256 added, bytes32 root, uint256 rootTotal) external {
        if (msg.sender != vault) revert NotVault(msg.sender, vault);
        uint256 fundedNow = funded + added;
        funded = uint128(fundedNow);
        if (root == 0) return;
        if (rootTotal > fundedNow) revert OverCommitted(rootTotal, fundedNow);
        uint256 activeAt = block.timestamp + rootDelay;
        _roots[epoch] = PayoutRoot({root: root, activeAt: uint40(activeAt), disabled: false});
        emit RootPosted(epoch, root, rootTotal, fundedNow, activeAt);
    }

    /// @inheritdoc IOperatorPayouts
    function disableRoot(uint64 epoch) external {
        if (msg.sender != guardian) revert NotGuardian(msg.sender, guardian);
        PayoutRoot storage posted = _roots[epoch];
        if (posted.activeAt == 0) revert NoRoot(epoch);
        if (block.timestamp >= posted.activeAt) revert AlreadyActive(epoch, posted.activeAt);
        posted.disabled = true;
        emit RootDisabled(epoch);
    }

    /// @inheritdoc IOperatorPayouts
    function setPayee(address payee) external {
        payeeOf[msg.sender] = payee;
        emit PayeeSet(msg.sender, payee);
    }

    /// @inheritdoc IOperatorPayouts
    function claim(uint64 epoch, address operator, uint256 cumulative, bytes32[] calldata proof)
        external
        returns (uint256 units)
    {
        _requireProven(epoch, operator, cumulative, proof);
        uint256 claimed = claimedOf[operator];
        if (cumulative <= claimed) revert NothingToClaim(operator, claimed, cumulative);
        units = cumulative - claimed;
        uint256 total = claimedTotal + units;
        if (total > funded) revert PotExceeded(total, funded);
        claimedOf[operator] = cumulative;
        claimedTotal = uint128(total);
        address payee = payeeOf[operator];
        if (payee == address(0)) payee = operator;
        emit Claimed(operator, payee, units, cumulative);
        token.safeTransfer(payee, units * UNIT);
    }

    /// @inheritdoc IOperatorPayouts
    function leafOf(address operator, uint256 cumulative) public pure returns (bytes32) {
        // Hashed twice, so that no inner node of the tree can be offered as a leaf.
        return keccak256(bytes.concat(keccak256(abi.encode(operator, cumulative))));
    }

    function _requireProven(uint64 epoch, address operator, uint256 cumulative, bytes32[] calldata proof) private view {
        PayoutRoot memory posted = _roots[epoch];
        if (posted.activeAt == 0) revert NoRoot(epoch);
        if (posted.disabled) revert RootIsDisabled(epoch);
        if (block.timestamp < posted.activeAt) revert NotActiveYet(epoch, posted.activeAt);
        if (!MerkleProof.verifyCalldata(proof, posted.root, leafOf(operator, cumulative))) {
            revert BadProof(epoch, operator, cumulative);
        }
    }
}
