// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IOperatorPayouts} from "../src/interfaces/IOperatorPayouts.sol";
import {Fixture} from "./support/Fixture.sol";

contract OperatorPayoutsTest is Fixture {
    address private constant ONE = address(0x1111);
    address private constant TWO = address(0x2222);

    function setUp() public {
        _setUpVault(6);
        _deposit(alice, 10e6);
        _authorise(ALICE_KEY, alice, 8e6);
    }

    function test_claim_paysOnceAfterTheDelay() public {
        bytes32 one = payouts.leafOf(ONE, 2e6);
        bytes32 two = payouts.leafOf(TWO, 1e6);
        _settle(_record(alice, 3e6), _pair(one, two), 3e6);
        vm.expectRevert(
            abi.encodeWithSelector(IOperatorPayouts.NotActiveYet.selector, 1, START + ROOT_DELAY)
        );
        payouts.claim(1, ONE, 2e6, _proof(two));
        vm.warp(START + ROOT_DELAY);
        vm.assertEq(payouts.claim(1, ONE, 2e6, _proof(two)), 2e6);
        vm.assertEq(token.balanceOf(ONE), 2e6);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NothingToClaim.selector, ONE, 2e6, 2e6));
        payouts.claim(1, ONE, 2e6, _proof(two));
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.BadProof.selector, 1, ONE, 3e6));
        payouts.claim(1, ONE, 3e6, _proof(two));
    }

    function test_claim_byAnOlderRootStaysGoodAndPaysNothingTwice() public {
        _settle(_record(alice, 2e6), payouts.leafOf(ONE, 2e6), 2e6);
        _settle(_record(alice, 5e6), payouts.leafOf(ONE, 5e6), 5e6);
        vm.warp(START + ROOT_DELAY);
        bytes32[] memory none;
        vm.assertEq(payouts.claim(1, ONE, 2e6, none), 2e6);
        vm.assertEq(payouts.claim(2, ONE, 5e6, none), 3e6);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NothingToClaim.selector, ONE, 5e6, 2e6));
        payouts.claim(1, ONE, 2e6, none);
        vm.assertEq(payouts.claimedTotal(), 5e6);
    }

    function test_claim_failsWithoutARoot() public {
        bytes32[] memory none;
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NoRoot.selector, 9));
        payouts.claim(9, ONE, 1, none);
    }

    function test_claim_neverExceedsThePot() public {
        // A dishonest root whose leaves add up to more than its stated total.
        bytes32 one = payouts.leafOf(ONE, 3e6);
        bytes32 two = payouts.leafOf(TWO, 3e6);
        _settle(_record(alice, 4e6), _pair(one, two), 4e6);
        vm.warp(START + ROOT_DELAY);
        payouts.claim(1, ONE, 3e6, _proof(two));
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.PotExceeded.selector, 6e6, 4e6));
        payouts.claim(1, TWO, 3e6, _proof(one));
    }

    function test_claim_refusesAnInnerNodeAsLeaf() public {
        bytes32 one = payouts.leafOf(ONE, 1e6);
        bytes32 two = payouts.leafOf(TWO, 2e6);
        bytes32 three = payouts.leafOf(address(3), 0);
        _settle(_record(alice, 3e6), _pair(_pair(one, two), three), 3e6);
        vm.warp(START + ROOT_DELAY);
        (bytes32 low, bytes32 high) = one < two ? (one, two) : (two, one);
        vm.expectRevert();
        payouts.claim(1, address(uint160(uint256(low))), uint256(high), _proof(three));
    }

    function test_leafOf_isOpenZeppelinsStandardLeaf() public view {
        // From npm @openzeppelin/merkle-tree: the root of a tree of one leaf is the leaf.
        address operator = address(bytes20(hex"0101010101010101010101010101010101010101"));
        vm.assertEq(
            payouts.leafOf(operator, 1_000_000),
            bytes32(0x79a22b0526ec0bb0e01c150a8cb2128e2a441330e6fdaa8d04fe23847ad69ee1)
        );
    }

    function test_claim_goesToThePayeeThatTheOperatorChose() public {
        _settle(_record(alice, 3e6), payouts.leafOf(bob, 3e6), 3e6);
        vm.warp(START + ROOT_DELAY);
        token.setBlacklisted(bob, true);
        bytes32[] memory none;
        vm.expectRevert();
        payouts.claim(1, bob, 3e6, none);
        vm.prank(bob);
        payouts.setPayee(address(0x99));
        payouts.claim(1, bob, 3e6, none);
        vm.assertEq(token.balanceOf(address(0x99)), 3e6);
    }

    function test_settle_failsWhenTheRootPromisesTooMuch() public {
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.OverCommitted.selector, 2e6, 1e6));
        vault.settle(1, 0, "root", 2e6, 0, _record(alice, 1e6));
    }

    function test_onSettle_isTheVaultsAlone() public {
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NotVault.selector, address(this), address(vault)));
        payouts.onSettle(1, 1e6, "root", 1e6);
    }

    function test_disableRoot_isTheGuardiansUntilItIsActive() public {
        _settle(_record(alice, 1e6), payouts.leafOf(ONE, 1e6), 1e6);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NotGuardian.selector, address(this), guardian));
        payouts.disableRoot(1);
        vm.startPrank(guardian);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.NoRoot.selector, 2));
        payouts.disableRoot(2);
        payouts.disableRoot(1);
        vm.stopPrank();
        vm.warp(START + ROOT_DELAY);
        bytes32[] memory none;
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.RootIsDisabled.selector, 1));
        payouts.claim(1, ONE, 1e6, none);
        _settle("", payouts.leafOf(ONE, 1e6), 1e6);
        vm.warp(START + 2 * ROOT_DELAY);
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.AlreadyActive.selector, 2, START + 2 * ROOT_DELAY));
        payouts.disableRoot(2);
        vm.assertEq(payouts.claim(2, ONE, 1e6, none), 1e6);
    }

    function test_fuzz_claim_paysExactlyWhatIsProven(uint64 first, uint64 second, uint8 extra) public {
        first = uint64(bound(first, 1, 4e6));
        second = uint64(bound(second, 1, 4e6));
        bytes32 one = payouts.leafOf(ONE, first);
        bytes32 two = payouts.leafOf(TWO, second);
        _settle(_record(alice, first + second), _pair(one, two), first + second);
        vm.warp(START + ROOT_DELAY);
        if (extra > 0) {
            uint256 more = uint256(first) + extra;
            vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.BadProof.selector, 1, ONE, more));
            payouts.claim(1, ONE, more, _proof(two));
        }
        payouts.claim(1, ONE, first, _proof(two));
        payouts.claim(1, TWO, second, _proof(one));
        vm.assertEq(token.balanceOf(address(payouts)), 0);
    }
}
