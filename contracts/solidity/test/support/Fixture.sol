// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {CreditVault} from "../../src/CreditVault.sol";
import {OperatorPayouts} from "../../src/OperatorPayouts.sol";
import {ICreditVault} from "../../src/interfaces/ICreditVault.sol";
import {Cheats} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";

/// @notice A vault with its people, and one-line ways to do what they do
abstract contract Fixture is Cheats {
    uint32 internal constant EXIT_DELAY = 7 days;
    uint32 internal constant ROOT_DELAY = 1 hours;
    uint256 internal constant START = 1_700_000_000;
    uint32 internal constant VALID_UNTIL = uint32(START + 365 days);
    uint256 internal constant SETTLER_KEY = 0x5E77;
    uint256 internal constant ALICE_KEY = 0xA11CE;
    uint256 internal constant BOB_KEY = 0xB0B;

    bytes32 internal constant TRANSFER = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 internal constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );

    HostileToken internal token;
    CreditVault internal vault;
    OperatorPayouts internal payouts;
    uint256 internal unit;
    address internal coordinator = address(0xC0);
    address internal guardian = address(0x6A);
    address internal settler = vm.addr(SETTLER_KEY);
    address internal alice = vm.addr(ALICE_KEY);
    address internal bob = vm.addr(BOB_KEY);

    function _setUpVault(uint8 decimals) internal {
        vm.warp(START);
        token = new HostileToken(decimals);
        vault = new CreditVault(IERC20(address(token)), coordinator, settler, guardian, EXIT_DELAY, ROOT_DELAY);
        payouts = vault.payouts();
        unit = vault.UNIT();
    }

    function _deposit(address account, uint256 units) internal virtual {
        token.mint(address(this), units * unit);
        token.approve(address(vault), units * unit);
        vault.deposit(account, units * unit);
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked("\x19\x01", vault.domainSeparator(), structHash));
    }

    function _signature(uint256 key, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, _digest(structHash));
        return abi.encodePacked(r, s, v);
    }

    function _authorisationHash(address account, uint64 cap, uint32 validUntil) internal view returns (bytes32) {
        uint64 nonce = vault.noncesOf(account).authorisation;
        bytes32 typeHash = vault.SPEND_AUTHORISATION_TYPEHASH();
        return keccak256(abi.encode(typeHash, account, coordinator, cap, validUntil, nonce, bytes32("session")));
    }

    function _voucherHash(address account, uint64 units, uint64 nonce, uint32 deadline) internal view returns (bytes32) {
        return keccak256(abi.encode(vault.WITHDRAWAL_VOUCHER_TYPEHASH(), account, units, nonce, deadline));
    }

    function _submit(address account, uint64 cap, uint32 validUntil, bytes memory signature) internal {
        ICreditVault.SpendAuthorisation[] memory batch = new ICreditVault.SpendAuthorisation[](1);
        batch[0] = ICreditVault.SpendAuthorisation(account, cap, validUntil, "session", signature);
        vault.authorise(batch);
    }

    function _authorise(uint256 key, address account, uint64 cap) internal {
        _submit(account, cap, VALID_UNTIL, _signature(key, _authorisationHash(account, cap, VALID_UNTIL)));
    }

    /// @dev What a payer signs for the token: a transfer to the vault, good for an hour.
    function _transferAuthorisation(uint256 key, bytes32 typeHash, uint256 units, bytes32 nonce)
        internal
        view
        returns (ICreditVault.TransferAuthorisation memory signed)
    {
        signed.from = vm.addr(key);
        signed.value = units * unit;
        signed.validBefore = block.timestamp + 1 hours;
        signed.nonce = nonce;
        bytes32 structHash = keccak256(
            abi.encode(typeHash, signed.from, address(vault), signed.value, uint256(0), signed.validBefore, nonce)
        );
        bytes32 digest = keccak256(abi.encodePacked("\x19\x01", token.DOMAIN_SEPARATOR(), structHash));
        (signed.v, signed.r, signed.s) = vm.sign(key, digest);
    }

    function _record(address account, uint64 cumulative) internal pure returns (bytes memory) {
        return abi.encodePacked(account, cumulative);
    }

    function _settle(bytes memory records, bytes32 root, uint64 rootTotal) internal returns (uint256) {
        uint64 epoch = vault.lastEpoch() + 1;
        vm.prank(settler);
        return vault.settle(epoch, 0, root, rootTotal, "commitment", records);
    }

    function _balance(address account) internal view returns (uint64) {
        return vault.accountOf(account).balance;
    }

    function _charged(address account) internal view returns (uint64) {
        return vault.accountOf(account).charged;
    }

    function _pair(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return left < right ? keccak256(abi.encode(left, right)) : keccak256(abi.encode(right, left));
    }

    function _proof(bytes32 sibling) internal pure returns (bytes32[] memory proof) {
        proof = new bytes32[](1);
        proof[0] = sibling;
    }
}
