// Package driver runs containerd's own snapshotter suite against a varve daemon, as containerd would
// talk to it: through the proxy snapshotter client and a Unix socket.
package driver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"github.com/containerd/continuity/fs/fstest"
	"google.golang.org/grpc"
)

func connect(t *testing.T) (snapshots.Snapshotter, func() error) {
	socket := os.Getenv("VARVE_CONTAINERD_SOCKET")
	if socket == "" {
		t.Fatal("VARVE_CONTAINERD_SOCKET is not set: it names the socket of a daemon for this test alone")
	}
	connection, err := grpc.Dial("unix://"+socket, grpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "varve"), connection.Close
}

func TestSuite(t *testing.T) {
	testsuite.SnapshotterSuite(t, "varve", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		snapshotter, closeConnection := connect(t)
		return snapshotter, closeConnection, nil
	})
}

// The suite of containerd 1.6 skips its Rename, which fails on kernel overlayfs. These are the steps
// that make it fail there: directories of a lower layer change their names, over two generations.
func TestRenameOfLowerDirectories(t *testing.T) {
	checkGenerations(t, []fstest.Applier{
		fstest.Apply(
			fstest.CreateDir("/dir1", 0700),
			fstest.CreateDir("/dir1/deep", 0711),
			fstest.CreateFile("/dir1/deep/file", []byte("deep\n"), 0600),
			fstest.CreateDir("/somefiles", 0700),
			fstest.CreateFile("/somefiles/f1", []byte("was here first!"), 0644),
			fstest.CreateFile("/somefiles/f2", []byte("nothing interesting"), 0644),
		),
		fstest.Apply(
			fstest.Rename("/dir1", "/dir2"),
			fstest.CreateFile("/somefiles/f1-overwrite", []byte("new content 1"), 0644),
			fstest.Rename("/somefiles/f1-overwrite", "/somefiles/f1"),
			fstest.Rename("/somefiles/f2", "/dir2/f2"),
			fstest.Chmod("/dir2/deep/file", 0640),
		),
		fstest.Apply(
			fstest.Rename("/dir2/deep", "/deep"),
			fstest.CreateDir("/dir1", 0755),
			fstest.CreateFile("/dir1/again", []byte("again\n"), 0644),
			fstest.Rename("/dir2", "/dir1/dir3"),
		),
	})
}

// Kernel overlayfs breaks hard links when it copies up.
func TestFuseKeepsHardLinks(t *testing.T) {
	checkGenerations(t, []fstest.Applier{
		fstest.Apply(
			fstest.CreateDir("/a", 0755),
			fstest.CreateDir("/a/deep", 0755),
			fstest.CreateFile("/a/deep/one", []byte("one\n"), 0600),
			fstest.Link("/a/deep/one", "/a/two"),
			fstest.Link("/a/deep/one", "/three"),
		),
		fstest.Apply(fstest.Rename("/a", "/b"), fstest.Chmod("/three", 0640)),
		fstest.Apply(fstest.CreateFile("/b/two", []byte("changed\n"), 0640), fstest.Rename("/b", "/c")),
	})
}

// checkGenerations makes a snapshot of each generation's changes on top of the one before, and
// compares what shows with a plain directory to which all of them were applied.
func checkGenerations(t *testing.T, generations []fstest.Applier) {
	t.Helper()
	ctx := context.Background()
	snapshotter, closeConnection := connect(t)
	defer closeConnection()
	parent := ""
	for generation, changes := range generations {
		key := filepath.Join(t.TempDir(), "active")
		mounts, err := snapshotter.Prepare(ctx, key, parent)
		if err != nil {
			t.Fatal(err)
		}
		within(t, mounts, changes.Apply)
		name := filepath.Join(t.TempDir(), "committed")
		if err := snapshotter.Commit(ctx, name, key); err != nil {
			t.Fatal(err)
		}
		if mounts, err = snapshotter.View(ctx, name+"-view", name); err != nil {
			t.Fatal(err)
		}
		applied := fstest.Apply(generations[:generation+1]...)
		within(t, mounts, func(root string) error {
			return fstest.CheckDirectoryEqualWithApplier(root, applied)
		})
		if err := snapshotter.Remove(ctx, name+"-view"); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
}

// within runs work where the mounts show.
func within(t *testing.T, mounts []mount.Mount, work func(root string) error) {
	t.Helper()
	root := t.TempDir()
	if err := mount.All(mounts, root); err != nil {
		t.Fatal(err)
	}
	defer mount.UnmountAll(root, 0)
	if err := work(root); err != nil {
		t.Fatalf("%v: %+v", mounts, err)
	}
}
