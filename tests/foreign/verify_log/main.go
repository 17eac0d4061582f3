// An outsider's check of a tlog-tiles log, with nothing but Go's own golang.org/x/mod/sumdb/{note,tlog}:
//
//	verify_log DIR KEY [-since NOTE] [-proof FILE -event FILE]
//
// The checkpoint's signature, every entry against hashes that lead to its root, consistency with an older checkpoint, one
// tlog-proof. Prints what is wrong and ends with 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8
const width = 1 << height

func main() {
	since := flag.String("since", "", "an older checkpoint of the log")
	proof := flag.String("proof", "", "a tlog-proof")
	event := flag.String("event", "", "the event that it proves")
	flag.CommandLine.Parse(os.Args[3:])
	if err := run(os.Args[1], os.Args[2], *since, *proof, *event); err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
}

func run(dir, key, since, proof, event string) error {
	newest, err := os.ReadFile(dir + "/checkpoint")
	if err != nil {
		return err
	}
	tree, err := head(newest, key)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, tiles{dir})
	if err := entries(dir, tree, reader); err != nil {
		return err
	}
	if since != "" {
		if err := continues(since, key, tree, reader); err != nil {
			return err
		}
	}
	if proof != "" {
		if err := included(proof, event, key); err != nil {
			return err
		}
	}
	fmt.Printf("OK: %d entries, root %s\n", tree.N, tree.Hash)
	return nil
}

// head opens a signed checkpoint.
func head(text []byte, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("a checkpoint of another log: %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// tiles reads the files of a log; the library checks them against the root.
type tiles struct{ dir string }

func (t tiles) Height() int { return height }

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		bytes, err := os.ReadFile(t.dir + "/" + path(tile))
		if err != nil {
			whole := tile
			whole.W = width
			bytes, err = os.ReadFile(t.dir + "/" + path(whole))
			if err == nil && len(bytes) >= tile.W*tlog.HashSize {
				bytes = bytes[:tile.W*tlog.HashSize]
			}
		}
		if err != nil {
			return nil, err
		}
		found = append(found, bytes)
	}
	return found, nil
}

// path is the one of c2sp.org/tlog-tiles: without the height.
func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

// entries compares every entry with the leaf hash that leads to the root.
func entries(dir string, tree tlog.Tree, reader tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += width {
		count := tree.N - first
		if count > width {
			count = width
		}
		tile := tlog.Tile{H: height, L: 0, N: first / width, W: int(count)}
		bundle, err := os.ReadFile(dir + "/" + strings.Replace(path(tile), "tile/0/", "tile/entries/", 1))
		if err != nil {
			return err
		}
		var indexes []int64
		for n := int64(0); n < count; n++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, first+n))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for n, hash := range hashes {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("the bundle ends before entry %d", first+int64(n))
			}
			length := int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:2+length]) != hash {
				return fmt.Errorf("entry %d does not hash to its leaf", first+int64(n))
			}
			bundle = bundle[2+length:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("bytes behind the last entry of bundle %d", first/width)
		}
	}
	return nil
}

func continues(since, key string, tree tlog.Tree, reader tlog.HashReader) error {
	text, err := os.ReadFile(since)
	if err != nil {
		return err
	}
	old, err := head(text, key)
	if err != nil {
		return err
	}
	if old.N > tree.N {
		return fmt.Errorf("rolled back: %d entries before, %d now", old.N, tree.N)
	}
	proof, err := tlog.ProveTree(tree.N, old.N, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
}

func included(proof, event, key string) error {
	text, err := os.ReadFile(proof)
	if err != nil {
		return err
	}
	leaf, err := os.ReadFile(event)
	if err != nil {
		return err
	}
	parts := strings.SplitN(string(text), "\n\n", 2)
	lines := strings.Split(parts[0], "\n")
	if len(parts) != 2 || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("%s is no tlog-proof", proof)
	}
	tree, err := head([]byte(parts[1]), key)
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var hashes tlog.RecordProof
	for _, line := range lines[2:] {
		bytes, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(bytes) != tlog.HashSize {
			return fmt.Errorf("%q is no hash", line)
		}
		var hash tlog.Hash
		copy(hash[:], bytes)
		hashes = append(hashes, hash)
	}
	return tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(leaf))
}
