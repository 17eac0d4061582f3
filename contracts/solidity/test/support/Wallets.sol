// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {CreditVault} from "../../src/CreditVault.sol";
import {ICreditVault} from "../../src/interfaces/ICreditVault.sol";
import {ITransferHook} from "./HostileToken.sol";

/// @notice A contract wallet that signs with its owner's key (ERC-1271)
contract ContractWallet {
    address private immutable _owner;

    constructor(address owner) {
        _owner = owner;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        address signer =
            ecrecover(digest, uint8(signature[64]), bytes32(signature[0:32]), bytes32(signature[32:64]));
        return signer == _owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

/// @notice An account that tries to leave a second time while it is being paid
contract ReentrantLeaver is ITransferHook {
    CreditVault private immutable _vault;
    bool public wasBlocked;

    constructor(CreditVault vault) {
        _vault = vault;
    }

    function request() external {
        _vault.requestExit();
    }

    function leave() external {
        _vault.finalizeExit(address(this));
    }

    function onTransfer() external {
        try _vault.finalizeExit(address(this)) {}
        catch {
            wasBlocked = true;
        }
    }
}

/// @notice Sends a second signed deposit while the first one's tokens arrive
contract ReentrantDepositor is ITransferHook {
    CreditVault private immutable _vault;
    ICreditVault.TransferAuthorisation private _second;
    bool public wasBlocked;

    constructor(CreditVault vault, ICreditVault.TransferAuthorisation memory second) {
        _vault = vault;
        _second = second;
    }

    function onTransfer() external {
        try _vault.depositWithTransferAuthorisation(_second) {}
        catch {
            wasBlocked = true;
        }
    }
}
