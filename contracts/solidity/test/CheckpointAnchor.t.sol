// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {CheckpointAnchor} from "../src/CheckpointAnchor.sol";
import {FoilToken} from "../src/FoilToken.sol";
import {ICheckpointAnchor} from "../src/interfaces/ICheckpointAnchor.sol";
import {Cheats} from "./support/Cheats.sol";

contract CheckpointAnchorTest is Cheats {
    CheckpointAnchor private anchor = new CheckpointAnchor();

    function test_anchor_onlyGrows() public {
        anchor.anchor("origin", 5, "root");
        vm.expectRevert(abi.encodeWithSelector(ICheckpointAnchor.NotGrowing.selector, 5, 5));
        anchor.anchor("origin", 5, "other root");
        anchor.anchor("origin", 6, "next root");
        vm.assertEq(anchor.headOf(address(this), "origin").size, 6);
        vm.assertEq(anchor.headOf(address(this), "origin").root, "next root");
    }

    function test_anchor_isThePublishersOwn() public {
        anchor.anchor("origin", 5, "root");
        vm.prank(address(0xbad));
        anchor.anchor("origin", 1, "forged");
        vm.assertEq(anchor.headOf(address(this), "origin").root, "root");
    }
}

contract FoilTokenTest is Cheats {
    function test_mint_isTheDeployersAlone() public {
        FoilToken token = new FoilToken();
        vm.assertEq(token.decimals(), 18);
        token.mint(address(1), 7);
        vm.assertEq(token.balanceOf(address(1)), 7);
        vm.prank(address(0xbad));
        vm.expectRevert(abi.encodeWithSelector(FoilToken.NotMinter.selector, address(0xbad), address(this)));
        token.mint(address(1), 7);
    }
}
