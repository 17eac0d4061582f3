// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {CreditVault} from "../src/CreditVault.sol";
import {ICreditVault} from "../src/interfaces/ICreditVault.sol";
import {Fixture} from "./support/Fixture.sol";
import {HostileToken} from "./support/HostileToken.sol";
import {ContractWallet, ReentrantLeaver} from "./support/Wallets.sol";

contract CreditVaultTest is Fixture {
    function setUp() public {
        _setUpVault(18);
    }

    // -------------------------------------------------------------- constructor

    function test_constructor_failsForOddDecimalsDelaysAndAddresses() public {
        IERC20 five = IERC20(address(new HostileToken(5)));
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.UnsupportedDecimals.selector, 5));
        new CreditVault(five, coordinator, settler, guardian, 1, 1);
        IERC20 nineteen = IERC20(address(new HostileToken(19)));
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.UnsupportedDecimals.selector, 19));
        new CreditVault(nineteen, coordinator, settler, guardian, 1, 1);
        IERC20 fine = IERC20(address(token));
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.DelayTooLong.selector, 30 days + 1, 30 days));
        new CreditVault(fine, coordinator, settler, guardian, 30 days + 1, 1);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.DelayTooLong.selector, 30 days + 1, 30 days));
        new CreditVault(fine, coordinator, settler, guardian, 1, 30 days + 1);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.ZeroAddress.selector));
        new CreditVault(fine, coordinator, address(0), guardian, 1, 1);
    }

    function test_constructor_takesSixToEighteenDecimals() public {
        for (uint8 decimals = 6; decimals <= 18; ++decimals) {
            _setUpVault(decimals);
            vm.assertEq(vault.UNIT(), 10 ** (decimals - 6));
            _deposit(alice, 5e6);
            vm.assertEq(_balance(alice), 5e6);
            vm.assertEq(token.balanceOf(address(vault)), 5 * 10 ** decimals);
        }
    }

    // ------------------------------------------------------------------ deposit

    function test_deposit_failsForPartsOfUnitsAndZero() public {
        token.mint(address(this), 10 * unit);
        token.approve(address(vault), 10 * unit);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotWholeUnits.selector, unit + 1, unit));
        vault.deposit(alice, unit + 1);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotWholeUnits.selector, 0, unit));
        vault.deposit(alice, 0);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.ZeroAddress.selector));
        vault.deposit(address(0), unit);
    }

    function test_deposit_failsAboveTheLargestBalance() public {
        uint256 largest = type(uint64).max;
        _deposit(alice, largest);
        token.mint(address(this), unit);
        token.approve(address(vault), unit);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BalanceTooLarge.selector, largest + 1, largest));
        vault.deposit(alice, unit);
    }

    function test_deposit_failsForATokenThatTakesFeesOrReturnsFalse() public {
        token.mint(address(this), 100 * unit);
        token.approve(address(vault), 100 * unit);
        token.setFee(100);
        vm.expectRevert(
            abi.encodeWithSelector(ICreditVault.WrongAmountReceived.selector, 100 * unit, 99 * unit)
        );
        vault.deposit(alice, 100 * unit);
        token.setFee(0);
        token.setReturnsFalse(true);
        vm.expectRevert();
        vault.deposit(alice, 100 * unit);
        vm.assertEq(_balance(alice), 0);
    }

    function test_deposit_saysWhoPaid() public {
        token.mint(bob, unit);
        vm.startPrank(bob);
        token.approve(address(vault), unit);
        vm.expectEmit(address(vault));
        emit ICreditVault.Deposited(alice, bob, 1);
        vault.deposit(alice, unit);
        vm.stopPrank();
    }

    function test_depositWithPermit_survivesAFrontRunPermit() public {
        token.mint(alice, 10 * unit);
        bytes32 permit = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                alice,
                address(vault),
                4 * unit,
                uint256(0),
                uint256(VALID_UNTIL)
            )
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(ALICE_KEY, keccak256(abi.encodePacked("\x19\x01", token.DOMAIN_SEPARATOR(), permit)));
        vm.prank(bob);
        token.permit(alice, address(vault), 4 * unit, VALID_UNTIL, v, r, s);
        vm.prank(alice);
        vault.depositWithPermit(alice, 4 * unit, VALID_UNTIL, v, r, s);
        vm.assertEq(_balance(alice), 4);
    }

    // ---------------------------------------------------------------- authorise

    function test_authorise_isIdempotentAndOnlyRaises() public {
        bytes memory five = _signature(ALICE_KEY, _authorisationHash(alice, 5e6, VALID_UNTIL));
        bytes memory nine = _signature(ALICE_KEY, _authorisationHash(alice, 9e6, VALID_UNTIL));
        _submit(alice, 9e6, VALID_UNTIL, nine);
        _submit(alice, 5e6, VALID_UNTIL, five);
        _submit(alice, 9e6, VALID_UNTIL, nine);
        vm.assertEq(vault.accountOf(alice).cap, 9e6);
    }

    function test_authorise_failsForAnotherSignerChainFigureOrSession() public {
        bytes32 hash = _authorisationHash(alice, 5e6, VALID_UNTIL);
        bytes memory good = _signature(ALICE_KEY, hash);
        _expectBadSignature(alice, 5e6, _signature(BOB_KEY, hash));
        _expectBadSignature(alice, 6e6, good);
        bytes32 here = vault.domainSeparator();
        vm.chainId(10);
        vm.assertNotEq(here, vault.domainSeparator());
        _expectBadSignature(alice, 5e6, good);
        vm.chainId(31337);
        ICreditVault.SpendAuthorisation[] memory batch = new ICreditVault.SpendAuthorisation[](1);
        batch[0] = ICreditVault.SpendAuthorisation(alice, 5e6, VALID_UNTIL, "another session", good);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadSignature.selector, alice));
        vault.authorise(batch);
        _submit(alice, 5e6, VALID_UNTIL, good);
    }

    function test_authorise_failsForAHighS() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ALICE_KEY, _digest(_authorisationHash(alice, 5e6, VALID_UNTIL)));
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        _expectBadSignature(alice, 5e6, abi.encodePacked(r, order - uint256(s), v == 27 ? uint8(28) : uint8(27)));
    }

    function test_authorise_takesAContractWallet() public {
        address wallet = address(new ContractWallet(alice));
        _deposit(wallet, 5e6);
        _authorise(ALICE_KEY, wallet, 5e6);
        vm.assertEq(_settle(_record(wallet, 2e6), 0, 0), 2e6);
        _expectBadSignature(wallet, 6e6, _signature(BOB_KEY, _authorisationHash(wallet, 6e6, VALID_UNTIL)));
    }

    function test_authorise_takesTheKeyOfADelegatedAccount() public {
        _deposit(alice, 5e6);
        bytes32 hash = _authorisationHash(alice, 5e6, VALID_UNTIL);
        bytes memory signature = _signature(ALICE_KEY, hash);
        // EIP-7702: delegated to something without ERC-1271. The stock checker refuses the account's own key.
        vm.etch(alice, abi.encodePacked(hex"ef0100", address(token)));
        vm.assertFalse(SignatureChecker.isValidSignatureNow(alice, _digest(hash), signature));
        _submit(alice, 5e6, VALID_UNTIL, signature);
        vm.assertEq(_settle(_record(alice, 1e6), 0, 0), 1e6);
    }

    // ------------------------------------------------------------------- settle

    function test_settle_clampsToCapBalanceAndValidity() public {
        _deposit(alice, 10e6);
        _deposit(bob, 1e6);
        _authorise(ALICE_KEY, alice, 4e6);
        _authorise(BOB_KEY, bob, 100e6);
        bytes memory records = bytes.concat(_record(alice, 9e6), _record(bob, 5e6), _record(address(0xdead), 1));
        (uint64[] memory charged, uint64[] memory debits) = vault.previewSettle(records);
        vm.assertEq(charged[0] + charged[1] + charged[2], 5e6);
        vm.assertEq(debits[0] + debits[1] + debits[2], 5e6);
        vm.expectEmit(address(vault));
        emit ICreditVault.Shortfall(alice, 1, 9e6, 4e6);
        vm.assertEq(_settle(records, 0, 0), 5e6);
        vm.assertEq(_charged(alice), 4e6);
        vm.assertEq(_balance(alice), 6e6);
        vm.assertEq(_balance(bob), 0);
        _deposit(bob, 10e6);
        vm.warp(VALID_UNTIL + 1);
        vm.assertEq(_settle(_record(bob, 6e6), 0, 0), 0);
    }

    function test_settle_keepsCapValidityAndExitOfTheSlot() public {
        _deposit(alice, 10e6);
        _authorise(ALICE_KEY, alice, 8e6);
        vm.prank(alice);
        vault.requestExit();
        _settle(_record(alice, 3e6), 0, 0);
        ICreditVault.Account memory account = vault.accountOf(alice);
        vm.assertEq(account.balance, 7e6);
        vm.assertEq(account.charged, 3e6);
        vm.assertEq(account.cap, 8e6);
        vm.assertEq(account.validUntil, VALID_UNTIL);
        vm.assertEq(account.exitAt, START + EXIT_DELAY);
    }

    function test_settle_countsARepeatedRecordOnce() public {
        _deposit(alice, 10e6);
        _authorise(ALICE_KEY, alice, 8e6);
        vm.assertEq(_settle(bytes.concat(_record(alice, 2e6), _record(alice, 2e6)), 0, 0), 2e6);
        vm.assertEq(_settle(_record(alice, 1e6), 0, 0), 0);
        vm.assertEq(_settle(_record(alice, 5e6), 0, 0), 3e6);
    }

    function test_settle_failsForOthersWrongEpochsBadRecordsAndTooLittle() public {
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotSettler.selector, address(this), settler));
        vault.settle(1, 0, 0, 0, 0, "");
        vm.startPrank(settler);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.WrongEpoch.selector, 1, 2));
        vault.settle(2, 0, 0, 0, 0, "");
        vault.settle(1, 0, 0, 0, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.WrongEpoch.selector, 2, 1));
        vault.settle(1, 0, 0, 0, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadRecords.selector, 1));
        vault.settle(2, 0, 0, 0, 0, hex"00");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BelowMinimum.selector, 0, 1));
        vault.settle(2, 1, 0, 0, 0, "");
        vm.stopPrank();
    }

    function test_setSettler_isTheCoordinatorsAlone() public {
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotCoordinator.selector, address(this), coordinator));
        vault.setSettler(bob);
        vm.prank(coordinator);
        vault.setSettler(bob);
        vm.prank(bob);
        vault.settle(1, 0, 0, 0, 0, "");
    }

    function test_fuzz_settle_neverExceedsCapOrDeposit(uint64 deposited, uint64 cap, uint64 first, uint64 second) public {
        deposited = uint64(bound(deposited, 1, 1e15));
        cap = uint64(bound(cap, 1, type(uint64).max));
        _deposit(alice, deposited);
        _authorise(ALICE_KEY, alice, cap);
        uint256 total = _settle(_record(alice, first), 0, 0);
        total += _settle(bytes.concat(_record(alice, second), _record(alice, second)), 0, 0);
        uint256 expected = first > second ? first : second;
        if (expected > cap) expected = cap;
        if (expected > deposited) expected = deposited;
        vm.assertEq(total, expected);
        vm.assertEq(_charged(alice), expected);
        vm.assertEq(uint256(_balance(alice)) + expected, deposited);
        vm.assertEq(token.balanceOf(address(payouts)), expected * unit);
        vm.assertEq(payouts.funded(), expected);
    }

    function test_fuzz_previewSettle_saysWhatSettleDoes(uint64 deposited, uint64 cap, uint64 asked) public {
        deposited = uint64(bound(deposited, 1, 1e15));
        _deposit(alice, deposited);
        _authorise(ALICE_KEY, alice, uint64(bound(cap, 1, 2e15)));
        (uint64[] memory charged, uint64[] memory debits) = vault.previewSettle(_record(alice, asked));
        vm.assertEq(_settle(_record(alice, asked), 0, 0), debits[0]);
        vm.assertEq(_charged(alice), charged[0]);
    }

    // ----------------------------------------------------------------- withdraw

    function test_withdraw_paysTheVouchersAccountOnce() public {
        _deposit(alice, 10e6);
        bytes memory voucher = _signature(SETTLER_KEY, _voucherHash(alice, 4e6, 0, VALID_UNTIL));
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadSignature.selector, settler));
        vault.withdraw(bob, 4e6, VALID_UNTIL, voucher);
        vm.prank(alice);
        vault.withdraw(address(0x77), 4e6, VALID_UNTIL, voucher);
        vm.assertEq(token.balanceOf(address(0x77)), 4e6 * unit);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadSignature.selector, settler));
        vault.withdraw(alice, 4e6, VALID_UNTIL, voucher);
    }

    function test_withdraw_failsWhenLateOrShort() public {
        _deposit(alice, 1e6);
        bytes memory voucher = _signature(SETTLER_KEY, _voucherHash(alice, 4e6, 0, uint32(START + 60)));
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.InsufficientBalance.selector, 1e6, 4e6));
        vault.withdraw(alice, 4e6, uint32(START + 60), voucher);
        vm.warp(START + 61);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.VoucherExpired.selector, START + 60));
        vault.withdraw(alice, 4e6, uint32(START + 60), voucher);
    }

    // --------------------------------------------------------------------- exit

    function test_exit_paysEverythingAfterTheDelayWhateverOthersDo() public {
        _deposit(alice, 10e6);
        bytes memory oldSignature = _signature(ALICE_KEY, _authorisationHash(alice, 9e6, VALID_UNTIL));
        bytes memory oldVoucher = _signature(SETTLER_KEY, _voucherHash(alice, 1e6, 0, VALID_UNTIL));
        _submit(alice, 9e6, VALID_UNTIL, oldSignature);
        vm.prank(alice);
        vault.requestExit();
        _deposit(alice, 1);
        vm.warp(START + 3 days);
        vm.prank(alice);
        vault.requestExit(); // does not move the date
        _settle(_record(alice, 4e6), 0, 0); // the coordinator may still settle what is signed for
        vm.warp(START + EXIT_DELAY - 1);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.ExitNotDue.selector, START + EXIT_DELAY));
        vault.finalizeExit(alice);
        vm.warp(START + EXIT_DELAY);
        vm.prank(alice);
        vault.finalizeExit(alice);
        vm.assertEq(token.balanceOf(alice), (6e6 + 1) * unit);

        _deposit(alice, 5e6);
        _expectBadSignature(alice, 9e6, oldSignature);
        vm.assertEq(_settle(_record(alice, 9e6), 0, 0), 0);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadSignature.selector, settler));
        vault.withdraw(alice, 1e6, VALID_UNTIL, oldVoucher);
    }

    function test_exit_startsAfresh() public {
        _deposit(alice, 10e6);
        _authorise(ALICE_KEY, alice, 9e6);
        _settle(_record(alice, 4e6), 0, 0);
        vm.prank(alice);
        vault.requestExit();
        vm.warp(START + EXIT_DELAY);
        vm.prank(alice);
        vault.finalizeExit(alice);
        vm.assertEq(vault.accountOf(alice).cap, 4e6);
        // A returning user may choose a lower cap than before; charges go on counting from where they were.
        _deposit(alice, 5e6);
        _authorise(ALICE_KEY, alice, 5e6);
        vm.assertEq(_settle(_record(alice, 9e6), 0, 0), 1e6);
    }

    function test_exit_canBeCancelled() public {
        _deposit(alice, 1e6);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NoExitRequested.selector, alice));
        vault.cancelExit();
        vm.prank(alice);
        vault.requestExit();
        vm.prank(alice);
        vault.cancelExit();
        vm.warp(START + EXIT_DELAY);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NoExitRequested.selector, alice));
        vault.finalizeExit(alice);
    }

    function test_exit_ofABlacklistedUserGoesElsewhere() public {
        _deposit(alice, 1e6);
        vm.prank(alice);
        vault.requestExit();
        vm.warp(START + EXIT_DELAY);
        token.setBlacklisted(alice, true);
        vm.prank(alice);
        vm.expectRevert();
        vault.finalizeExit(alice);
        vm.prank(alice);
        vault.finalizeExit(address(0x99));
        vm.assertEq(token.balanceOf(address(0x99)), 1e6 * unit);
    }

    function test_exit_cannotBeReentered() public {
        ReentrantLeaver leaver = new ReentrantLeaver(vault);
        _deposit(address(leaver), 5e6);
        _deposit(alice, 5e6);
        token.setHook(address(leaver));
        leaver.request();
        vm.warp(START + EXIT_DELAY);
        leaver.leave();
        vm.assertTrue(leaver.wasBlocked());
        vm.assertEq(token.balanceOf(address(vault)), 5e6 * unit);
    }

    // ------------------------------------------------------------------ private

    function submitFromOutside(address account, uint64 cap, bytes memory signature) external {
        _submit(account, cap, VALID_UNTIL, signature);
    }

    function _expectBadSignature(address account, uint64 cap, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadSignature.selector, account));
        this.submitFromOutside(account, cap, signature);
    }
}
