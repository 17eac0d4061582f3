// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IPackages} from "./interfaces/IPackages.sol";

/// @title Packages
/// @notice See {IPackages}. Immutable: no upgrade, no pause, no money inside.
/// @dev Does not check: that the credits are given (the log books each `Purchased` event, anybody can compare).
contract Packages is IPackages {
    using SafeERC20 for IERC20;

    // ------------------------------------------------------------------ storage

    mapping(uint32 id => Package) private _packages;

    // --------------------------------------------------------------- immutables

    /// @notice The token that buyers pay with
    IERC20 public immutable token;
    /// @notice Where the money goes
    address public immutable treasury;
    /// @notice Who keeps the price list
    address public immutable publisher;

    // ---------------------------------------------------------------- functions

    constructor(IERC20 token_, address treasury_, address publisher_) {
        if (treasury_ == address(0) || publisher_ == address(0)) revert ZeroAddress();
        token = token_;
        treasury = treasury_;
        publisher = publisher_;
    }

    /// @inheritdoc IPackages
    function packageOf(uint32 id) external view returns (Package memory) {
        return _packages[id];
    }

    /// @inheritdoc IPackages
    function list(uint32 id, Package calldata package) external {
        if (msg.sender != publisher) revert NotPublisher(msg.sender, publisher);
        if (package.validityS != 0 && (package.price == 0 || package.units == 0)) revert BadPackage(id);
        _packages[id] = package;
        emit Listed(id, package.price, package.units, package.validityS);
    }

    /// @inheritdoc IPackages
    function buy(uint32 id, address account, uint256 highestPrice) public {
        if (account == address(0)) revert ZeroAddress();
        Package memory package = _packages[id];
        if (package.validityS == 0) revert NotOnSale(id);
        if (package.price > highestPrice) revert PriceAbove(id, package.price, highestPrice);
        uint256 held = token.balanceOf(treasury);
        token.safeTransferFrom(msg.sender, treasury, package.price);
        uint256 received = token.balanceOf(treasury) - held;
        if (received != package.price) revert WrongAmountReceived(package.price, received);
        uint64 validUntil = uint64(block.timestamp) + package.validityS;
        emit Purchased(id, account, msg.sender, package.price, package.units, validUntil);
    }

    /// @inheritdoc IPackages
    function buyWithPermit(
        uint32 id,
        address account,
        uint256 highestPrice,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        // A permit can be front-run; then the allowance is there all the same, and if it is not, the transfer fails.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), highestPrice, deadline, v, r, s) {} catch {}
        buy(id, account, highestPrice);
    }
}
