// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICreditVault} from "../src/interfaces/ICreditVault.sol";
import {Fixture} from "./support/Fixture.sol";

/// @notice The vault's core for every value at once. On request, with PyPI halmos, from contracts/solidity:
/// halmos --contract SymbolicTest. forge does not run `check_*`.
contract SymbolicTest is Fixture {
    /// @dev Where `_accounts` lies; a wrong number makes the first assertion of every check fail.
    uint256 private constant ACCOUNTS_SLOT = 3;
    uint256 private constant LIABILITIES_SLOT = 5;
    /// @dev Not the fixture's: the address of a key is any address at all to halmos, also another account's.
    address private constant ACCOUNT = address(0xACC);

    function setUp() public {
        _setUpVault(6);
        _deposit(address(0xFEED), type(uint64).max);
        _deposit(address(0xF00D), type(uint64).max);
    }

    function test_theSlotsAreWhereTheChecksPutThem() public {
        _put(ACCOUNT, ICreditVault.Account(1, 2, 3, 4, 5));
        vm.assertEq(vault.accountOf(ACCOUNT).cap, 3);
        vm.assertEq(vault.liabilities(), 2 * uint256(type(uint64).max) + 1);
    }

    /// @dev The clamp alone, which `settle` applies to each record.
    function check_previewSettle_debitsAtMostCapAndBalance(
        uint64 balance,
        uint64 charged,
        uint64 cap,
        uint32 validUntil,
        uint64 asked
    ) public {
        if (charged > cap) return;
        _put(ACCOUNT, ICreditVault.Account(balance, charged, cap, validUntil, 0));
        (uint64[] memory after_, uint64[] memory debits) = vault.previewSettle(_record(ACCOUNT, asked));
        assert(after_[0] >= charged && after_[0] <= cap);
        assert(after_[0] == charged || after_[0] <= asked);
        assert(after_[0] - charged == debits[0]);
        assert(debits[0] <= balance);
        assert(debits[0] == 0 || block.timestamp <= validUntil);
    }

    /// @dev Whatever the settler asks: never above the cap, never above the balance, nothing lost, nothing else moved.
    function check_settle_debitsAtMostCapAndBalance(
        uint64 balance,
        uint64 charged,
        uint64 cap,
        uint32 validUntil,
        uint32 exitAt,
        uint64 asked
    ) public {
        if (charged > cap) return;
        _put(ACCOUNT, ICreditVault.Account(balance, charged, cap, validUntil, exitAt));
        uint256 total = _settle(_record(ACCOUNT, asked), 0, 0);
        ICreditVault.Account memory account = vault.accountOf(ACCOUNT);
        assert(account.charged >= charged);
        assert(account.charged <= cap);
        assert(account.charged == charged || account.charged <= asked);
        assert(account.charged - charged == total);
        assert(total <= balance);
        assert(account.balance == balance - total);
        assert(account.cap == cap && account.validUntil == validUntil && account.exitAt == exitAt);
        assert(total == 0 || block.timestamp <= validUntil);
        assert(vault.accountOf(address(0xFEED)).balance == type(uint64).max);
    }

    /// @dev Once due, an exit pays the whole balance, whatever the account looks like.
    function check_finalizeExit_paysTheWholeBalance(
        uint64 balance,
        uint64 charged,
        uint64 cap,
        uint32 validUntil,
        uint32 exitAt
    ) public {
        if (exitAt == 0 || exitAt > block.timestamp) return;
        _put(ACCOUNT, ICreditVault.Account(balance, charged, cap, validUntil, exitAt));
        vm.prank(ACCOUNT);
        vault.finalizeExit(ACCOUNT);
        assert(token.balanceOf(ACCOUNT) == balance);
        assert(vault.accountOf(ACCOUNT).balance == 0);
        assert(vault.accountOf(ACCOUNT).charged == charged);
    }

    /// @dev The liabilities are those of the two that deposited, plus the account's; their tokens cover it all.
    function _put(address who, ICreditVault.Account memory account) private {
        uint256 word = uint256(account.balance) | uint256(account.charged) << 64 | uint256(account.cap) << 128
            | uint256(account.validUntil) << 192 | uint256(account.exitAt) << 224;
        vm.store(address(vault), keccak256(abi.encode(who, ACCOUNTS_SLOT)), bytes32(word));
        uint256 liabilities = 2 * uint256(type(uint64).max) + account.balance;
        vm.store(address(vault), bytes32(LIABILITIES_SLOT), bytes32(liabilities));
    }
}
