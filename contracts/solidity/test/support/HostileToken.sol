// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @notice Called by a hostile token in the middle of a transfer
interface ITransferHook {
    function onTransfer() external;
}

/// @notice A token of any decimals that can take fees, blacklist, pause, return false and call back
contract HostileToken is ERC20Permit, ERC3009 {
    uint8 private immutable _decimals;
    uint256 public feeBasisPoints;
    bool public returnsFalse;
    bool public paused;
    address public hook;
    address public hookedRecipient;
    mapping(address => bool) public blacklisted;

    constructor(uint8 decimals_) ERC20("Hostile", "HOST") ERC20Permit("Hostile") {
        _decimals = decimals_;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setFee(uint256 basisPoints) external {
        feeBasisPoints = basisPoints;
    }

    function setBlacklisted(address account, bool value) external {
        blacklisted[account] = value;
    }

    function setPaused(bool value) external {
        paused = value;
    }

    function setHook(address hook_) external {
        hook = hook_;
    }

    /// @dev The hook is called for transfers to this account as well.
    function setHookedRecipient(address recipient) external {
        hookedRecipient = recipient;
    }

    function setReturnsFalse(bool value) external {
        returnsFalse = value;
    }

    function decimals() public view override returns (uint8) {
        return _decimals;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        if (returnsFalse) return false;
        return super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        if (returnsFalse) return false;
        return super.transferFrom(from, to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!paused, "paused");
        require(!blacklisted[from] && !blacklisted[to], "blacklisted");
        if (feeBasisPoints != 0 && from != address(0) && to != address(0)) {
            uint256 fee = amount * feeBasisPoints / 10_000;
            super._update(from, address(0xfee), fee);
            amount -= fee;
        }
        super._update(from, to, amount);
        if (hook != address(0) && (to == hook || to == hookedRecipient)) ITransferHook(hook).onTransfer();
    }
}
