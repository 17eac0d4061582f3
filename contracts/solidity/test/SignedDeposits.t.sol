// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICreditVault} from "../src/interfaces/ICreditVault.sol";
import {Fixture} from "./support/Fixture.sol";
import {ReentrantDepositor} from "./support/Wallets.sol";

/// @notice Deposits that a payer signs and anybody submits (EIP-3009), and what came past the vault
contract SignedDepositsTest is Fixture {
    function setUp() public {
        _setUpVault(6);
        token.mint(alice, 100e6 * unit);
    }

    // ------------------------------------------------------------------ deposit

    function test_signedDeposit_creditsRaisesTheCapAndExtendsValidity() public {
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one");
        uint32 validUntil = uint32(START) + vault.SIGNED_DEPOSIT_VALIDITY();
        vm.expectEmit(address(vault));
        emit ICreditVault.Deposited(alice, alice, 3e6);
        vm.expectEmit(address(vault));
        emit ICreditVault.Authorised(alice, 3e6, validUntil, 0, 0);
        vm.prank(bob);
        vault.depositWithTransferAuthorisation(signed);
        ICreditVault.Account memory account = vault.accountOf(alice);
        vm.assertEq(account.balance, 3e6);
        vm.assertEq(account.cap, 3e6);
        vm.assertEq(account.validUntil, validUntil);
        vm.assertEq(vault.liabilities(), 3e6);
        vm.assertEq(_settle(_record(alice, 9e6), 0, 0), 3e6);
    }

    function test_signedDeposit_neverShortensALongerValidity() public {
        _deposit(alice, 5e6);
        _authorise(ALICE_KEY, alice, 5e6);
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, 2e6, "one"));
        vm.assertEq(vault.accountOf(alice).validUntil, VALID_UNTIL);
        vm.assertEq(vault.accountOf(alice).cap, 7e6);
    }

    function test_receiveAuthorisation_isTheVaultsAlone() public {
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, RECEIVE, 3e6, "one");
        vm.prank(bob);
        vm.expectRevert();
        token.receiveWithAuthorization(
            alice, address(vault), 3e6 * unit, 0, signed.validBefore, "one", signed.v, signed.r, signed.s
        );
        vault.depositWithReceiveAuthorisation(signed);
        vm.assertEq(_balance(alice), 3e6);
        vm.expectRevert();
        vault.depositWithReceiveAuthorisation(signed);
        vm.assertEq(_balance(alice), 3e6);
    }

    function test_signedDeposit_failsForOthersAmountsPayersAndParts() public {
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one");
        signed.value += 1;
        vm.expectRevert();
        vault.depositWithTransferAuthorisation(signed);
        signed.value -= 1;
        signed.from = bob;
        vm.expectRevert();
        vault.depositWithTransferAuthorisation(signed);
        _setUpVault(18);
        signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one");
        signed.value += 1;
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotWholeUnits.selector, signed.value, unit));
        vault.depositWithTransferAuthorisation(signed);
    }

    function test_signedDeposit_isRefusedWhileAnExitIsPending() public {
        vm.prank(alice);
        vault.requestExit();
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.ExitPending.selector, alice, START + EXIT_DELAY));
        vault.depositWithTransferAuthorisation(signed);
        vm.prank(alice);
        vault.cancelExit();
        vault.depositWithTransferAuthorisation(signed);
        vm.assertEq(_balance(alice), 3e6);
    }

    function test_signedDeposit_failsForATokenThatTakesFees() public {
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 100, "one");
        token.setFee(100);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.WrongAmountReceived.selector, 100 * unit, 99 * unit));
        vault.depositWithTransferAuthorisation(signed);
        vm.assertEq(_balance(alice), 0);
        vm.assertEq(vault.accountOf(alice).cap, 0);
    }

    function test_signedDeposit_cannotBeReentered() public {
        ICreditVault.TransferAuthorisation memory second = _transferAuthorisation(ALICE_KEY, TRANSFER, 2e6, "two");
        ReentrantDepositor reentrant = new ReentrantDepositor(vault, second);
        token.setHook(address(reentrant));
        token.setHookedRecipient(address(vault));
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one"));
        vm.assertTrue(reentrant.wasBlocked());
        vm.assertEq(_balance(alice), 3e6);
        vm.assertEq(token.balanceOf(address(vault)), 3e6 * unit);
    }

    function test_signedDeposit_ofATokenWithoutEip3009CreditsNothing() public {
        // Answers every call with success and moves nothing.
        vm.etch(address(token), hex"5f5f5260205ff3");
        ICreditVault.TransferAuthorisation memory signed;
        signed.from = alice;
        signed.value = 3e6 * unit;
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.WrongAmountReceived.selector, 3e6 * unit, 0));
        vault.depositWithTransferAuthorisation(signed);
    }

    function test_fuzz_signedDeposit_raisesTheCapByWhatCame(uint64 cap, uint64 units) public {
        cap = uint64(bound(cap, 1, type(uint64).max));
        units = uint64(bound(units, 1, 100e6));
        _authorise(ALICE_KEY, alice, cap);
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, units, "one"));
        uint256 expected = uint256(cap) + units;
        if (expected > type(uint64).max) expected = type(uint64).max;
        vm.assertEq(vault.accountOf(alice).cap, expected);
        vm.assertEq(_balance(alice), units);
    }

    // ------------------------------------------------------------------ surplus

    function test_surplus_isNeverInferredAndAttributedOnce() public {
        ICreditVault.TransferAuthorisation memory signed = _transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one");
        _submitToTheToken(signed);
        vm.expectRevert();
        vault.depositWithTransferAuthorisation(signed);
        vm.assertEq(_balance(alice), 0);
        vm.assertEq(vault.liabilities(), 0);

        vm.expectRevert(abi.encodeWithSelector(ICreditVault.NotSettler.selector, address(this), settler));
        vault.attributeSurplus(alice, 3e6, "one");
        vm.startPrank(settler);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.AuthorisationUnused.selector, alice, bytes32("two")));
        vault.attributeSurplus(alice, 3e6, "two");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.SurplusExceeded.selector, 3e6, 3e6 + 1));
        vault.attributeSurplus(alice, 3e6 + 1, "one");
        vm.expectEmit(address(vault));
        emit ICreditVault.SurplusAttributed(alice, "one", 3e6);
        vault.attributeSurplus(alice, 3e6, "one");
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.AlreadyAttributed.selector, alice, bytes32("one")));
        vault.attributeSurplus(alice, 1, "one");
        vm.stopPrank();
        vm.assertEq(_balance(alice), 3e6);
        vm.assertEq(vault.accountOf(alice).cap, 0); // withdrawable, not chargeable
    }

    function test_surplus_ofOthersDepositsIsNone() public {
        _deposit(bob, 50e6);
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, 3e6, "one"));
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.SurplusExceeded.selector, 0, 3e6));
        vault.attributeSurplus(alice, 3e6, "one");
    }

    // ---------------------------------------------------------- tokens that stop

    function test_pausedToken_delaysAndLosesNothing() public {
        _deposit(alice, 5e6);
        _authorise(ALICE_KEY, alice, 5e6);
        vm.prank(alice);
        vault.requestExit();
        vm.warp(START + EXIT_DELAY);
        token.setPaused(true);
        vm.prank(settler);
        vm.expectRevert();
        vault.settle(1, 0, 0, 0, 0, _record(alice, 2e6));
        vm.prank(alice);
        vm.expectRevert();
        vault.finalizeExit(alice);
        vm.assertEq(_balance(alice), 5e6);
        vm.assertEq(vault.lastEpoch(), 0);
        token.setPaused(false);
        uint256 before = token.balanceOf(alice);
        vm.prank(alice);
        vault.finalizeExit(alice);
        vm.assertEq(token.balanceOf(alice) - before, 5e6 * unit);
    }

    function test_blacklistedPot_cannotHoldUsersBack() public {
        _deposit(alice, 5e6);
        _authorise(ALICE_KEY, alice, 5e6);
        token.setBlacklisted(address(payouts), true);
        vm.prank(settler);
        vm.expectRevert();
        vault.settle(1, 0, 0, 0, 0, _record(alice, 2e6));
        vm.prank(alice);
        vault.requestExit();
        vm.warp(START + EXIT_DELAY);
        uint256 before = token.balanceOf(alice);
        vm.prank(alice);
        vault.finalizeExit(alice);
        vm.assertEq(token.balanceOf(alice) - before, 5e6 * unit);
    }

    function test_moneyOut_failsToNobodyAndToTheVault() public {
        _deposit(alice, 5e6);
        vm.startPrank(alice);
        vault.requestExit();
        vm.warp(START + EXIT_DELAY);
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadRecipient.selector, address(0)));
        vault.finalizeExit(address(0));
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadRecipient.selector, address(vault)));
        vault.finalizeExit(address(vault));
        bytes memory voucher = _signature(SETTLER_KEY, _voucherHash(alice, 1e6, 0, VALID_UNTIL));
        vm.expectRevert(abi.encodeWithSelector(ICreditVault.BadRecipient.selector, address(vault)));
        vault.withdraw(address(vault), 1e6, VALID_UNTIL, voucher);
        vm.stopPrank();
    }

    // ------------------------------------------------------------------ private

    function _submitToTheToken(ICreditVault.TransferAuthorisation memory signed) private {
        token.transferWithAuthorization(
            signed.from, address(vault), signed.value, 0, signed.validBefore, signed.nonce, signed.v, signed.r, signed.s
        );
    }
}
