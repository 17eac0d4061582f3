// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title FoilToken
/// @notice A token for development chains only: its deployer can mint as much as it likes. 18 decimals, permit, EIP-3009.
contract FoilToken is ERC20Permit, ERC3009 {
    /// @notice Thrown when somebody else than the minter mints
    error NotMinter(address caller, address minter);

    /// @notice The deployer, who alone may mint
    address public immutable minter;

    constructor() ERC20("Counterfoil Development Token", "FOIL") ERC20Permit("Counterfoil Development Token") {
        minter = msg.sender;
    }

    /// @notice Makes `amount` base units out of nothing for `to`
    function mint(address to, uint256 amount) external {
        if (msg.sender != minter) revert NotMinter(msg.sender, minter);
        _mint(to, amount);
    }
}
