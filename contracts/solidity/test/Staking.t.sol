// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {AllotmentBounds} from "../src/AllotmentBounds.sol";
import {NetworkGovernor} from "../src/NetworkGovernor.sol";
import {StakeRegistry} from "../src/StakeRegistry.sol";
import {IAllotmentBounds} from "../src/interfaces/IAllotmentBounds.sol";
import {IStakeRegistry} from "../src/interfaces/IStakeRegistry.sol";
import {Cheats} from "./support/Cheats.sol";
import {HostileToken} from "./support/HostileToken.sol";

/// @notice Stake, votes by time, and a vote that changes the published parameter
contract StakingTest is Cheats {
    uint256 private constant START = 1_700_000_000;
    uint32 private constant UNBOND_DELAY = 14 days;
    uint256 private constant MINIMUM = 100 ether;

    HostileToken private token;
    StakeRegistry private registry;
    NetworkGovernor private governor;
    address private alice = address(0xA11CE);
    address private bob = address(0xB0B);

    function setUp() public {
        vm.warp(START);
        token = new HostileToken(18);
        registry = new StakeRegistry(IERC20(address(token)), MINIMUM, UNBOND_DELAY);
        governor = new NetworkGovernor(
            IVotes(address(registry)),
            NetworkGovernor.Options({
                votingDelay: 1 days,
                votingPeriod: 3 days,
                proposalThreshold: MINIMUM,
                quorumPercent: 20,
                floor: 10e6,
                ceiling: 50e6
            })
        );
    }

    // -------------------------------------------------------------------- stake

    function test_stake_countsAtThePastSecondAndFromTheFirstOn() public {
        _stake(alice, 150 ether);
        vm.warp(START + 10);
        _stake(bob, 50 ether);
        vm.warp(START + 20);
        vm.assertEq(registry.getPastVotes(alice, START), 150 ether);
        vm.assertEq(registry.pastStakeOf(bob, START + 9), 0);
        vm.assertEq(registry.pastStakeOf(bob, START + 10), 50 ether);
        address[] memory both = new address[](2);
        (both[0], both[1]) = (alice, bob);
        (uint256[] memory stakes, uint256 total) = registry.eligibleStakeAt(both, START + 19);
        vm.assertEq(stakes[0], 150 ether);
        vm.assertEq(stakes[1], 0); // below the minimum
        vm.assertEq(total, 200 ether); // which counts in the total all the same
        vm.expectRevert();
        registry.pastStakeOf(alice, START + 20); // a second that is not over can still change
    }

    function test_stake_isNotMovedByDelegation() public {
        _stake(alice, 150 ether);
        vm.prank(alice);
        registry.delegate(bob);
        vm.warp(START + 1);
        vm.assertEq(registry.getPastVotes(bob, START), 150 ether);
        vm.assertEq(registry.pastStakeOf(alice, START), 150 ether);
        _stake(alice, 1 ether);
        vm.assertEq(registry.getVotes(bob), 151 ether);
    }

    function test_stake_failsForZeroFeesAndFalse() public {
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.ZeroAmount.selector));
        registry.stake(0);
        token.mint(alice, 100);
        vm.startPrank(alice);
        token.approve(address(registry), 100);
        token.setFee(100);
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.WrongAmountReceived.selector, 100, 99));
        registry.stake(100);
        token.setFee(0);
        token.setReturnsFalse(true);
        vm.expectRevert();
        registry.stake(100);
        vm.stopPrank();
        vm.assertEq(registry.stakeOf(alice), 0);
    }

    function test_unbond_losesVotesAtOnceAndPaysAfterTheDelay() public {
        _stake(alice, 150 ether);
        vm.warp(START + 5);
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.StakeTooSmall.selector, alice, 150 ether, 151 ether));
        registry.unbond(151 ether);
        registry.unbond(60 ether);
        vm.assertEq(registry.getVotes(alice), 90 ether);
        vm.assertEq(registry.stakeOf(alice), 90 ether);
        vm.warp(START + 5 + UNBOND_DELAY - 1);
        vm.expectRevert(
            abi.encodeWithSelector(IStakeRegistry.UnbondingNotReady.selector, START + 5 + UNBOND_DELAY)
        );
        registry.withdraw(alice);
        vm.warp(START + 5 + UNBOND_DELAY);
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.BadRecipient.selector, address(registry)));
        registry.withdraw(address(registry));
        registry.withdraw(address(0x77));
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.NothingUnbonding.selector, alice));
        registry.withdraw(alice);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(address(0x77)), 60 ether);
        vm.assertEq(token.balanceOf(address(registry)), 90 ether);
    }

    function test_unbond_againWaitsForTheNewDate() public {
        _stake(alice, 150 ether);
        vm.startPrank(alice);
        registry.unbond(10 ether);
        vm.warp(START + 10 days);
        registry.unbond(20 ether);
        vm.warp(START + UNBOND_DELAY);
        vm.expectRevert();
        registry.withdraw(alice);
        vm.warp(START + 10 days + UNBOND_DELAY);
        registry.withdraw(alice);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(alice), 30 ether);
    }

    function test_constructor_failsForALongDelay() public {
        vm.expectRevert(abi.encodeWithSelector(IStakeRegistry.DelayTooLong.selector, 61 days, 60 days));
        new StakeRegistry(IERC20(address(token)), 1, 61 days);
    }

    function test_fuzz_stake_isHeldForItsOwners(uint96 first, uint96 second, uint96 out) public {
        first = uint96(bound(first, 1, type(uint96).max));
        second = uint96(bound(second, 1, type(uint96).max));
        out = uint96(bound(out, 1, first));
        _stake(alice, first);
        _stake(bob, second);
        vm.prank(alice);
        registry.unbond(out);
        vm.warp(START + UNBOND_DELAY);
        vm.assertEq(registry.getPastTotalSupply(START), uint256(first) - out + second);
        vm.prank(alice);
        registry.withdraw(alice);
        vm.assertEq(token.balanceOf(alice), out);
        vm.assertEq(token.balanceOf(address(registry)), uint256(first) - out + second);
    }

    // --------------------------------------------------------------------- vote

    function test_vote_changesTheBoundsByTheStakeOfItsSnapshot() public {
        AllotmentBounds bounds = governor.bounds();
        _stake(alice, 150 ether);
        _stake(bob, 100 ether);
        vm.warp(START + 1);
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = _proposal(20e6, 80e6);
        vm.prank(alice);
        uint256 id = governor.propose(targets, values, calls, "raise the allotment");
        vm.warp(START + 2 + 1 days);
        vm.prank(alice);
        governor.castVote(id, 1);
        // Bought after the snapshot: no weight in this vote.
        _stake(address(0xCAFE), 10_000 ether);
        vm.prank(address(0xCAFE));
        governor.castVote(id, 0);
        vm.prank(bob);
        governor.castVote(id, 0);
        vm.warp(START + 3 + 4 days);
        vm.assertEq(uint256(governor.state(id)), uint256(IGovernor.ProposalState.Succeeded));
        vm.expectEmit(address(bounds));
        emit IAllotmentBounds.BoundsChanged(20e6, 80e6);
        governor.execute(targets, values, calls, keccak256("raise the allotment"));
        vm.assertEq(bounds.floor(), 20e6);
        vm.assertEq(bounds.ceiling(), 80e6);
    }

    function test_vote_failsWithoutQuorumAndForBadBounds() public {
        AllotmentBounds bounds = governor.bounds();
        _stake(alice, 100 ether);
        _stake(bob, 900 ether);
        vm.warp(START + 1);
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = _proposal(20e6, 80e6);
        vm.prank(alice);
        uint256 id = governor.propose(targets, values, calls, "quietly");
        vm.warp(START + 2 + 1 days);
        vm.prank(alice);
        governor.castVote(id, 1);
        vm.warp(START + 3 + 4 days);
        vm.assertEq(uint256(governor.state(id)), uint256(IGovernor.ProposalState.Defeated));
        vm.expectRevert();
        governor.execute(targets, values, calls, keccak256("quietly"));
        vm.expectRevert(abi.encodeWithSelector(IAllotmentBounds.NotGovernor.selector, address(this), governor));
        bounds.setBounds(1, 2);
        vm.prank(address(governor));
        vm.expectRevert(abi.encodeWithSelector(IAllotmentBounds.BoundsCrossed.selector, 3, 2));
        bounds.setBounds(3, 2);
    }

    // ------------------------------------------------------------------ private

    function _proposal(uint64 floor, uint64 ceiling)
        private
        view
        returns (address[] memory targets, uint256[] memory values, bytes[] memory calls)
    {
        targets = new address[](1);
        values = new uint256[](1);
        calls = new bytes[](1);
        targets[0] = address(governor.bounds());
        calls[0] = abi.encodeCall(IAllotmentBounds.setBounds, (floor, ceiling));
    }

    function _stake(address who, uint256 amount) private {
        token.mint(who, amount);
        vm.startPrank(who);
        token.approve(address(registry), amount);
        registry.stake(amount);
        vm.stopPrank();
    }
}
