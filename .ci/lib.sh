# Shared by the scripts of this folder, which source it from the repository's root.
# shellcheck shell=bash

# No version control stamp: a clone may belong to another user than the one who
# builds. And no paths in what is compiled: xcaddy builds that way, so that its
# build finds in the cache what the steps before it compiled.
export GOFLAGS="${GOFLAGS:+$GOFLAGS }-buildvcs=false -trimpath"

# What is built and kept between runs; git ignores it.
cache="$PWD/.ci/cache"
mkdir -p "$cache/bin"

# step TITLE COMMAND... runs a command and says how long it took.
step() {
	local title=$1 started=$SECONDS
	shift
	printf '\n=== %s\n' "$title"
	"$@"
	printf '=== %s: done in %d s\n' "$title" $((SECONDS - started))
}

# need PROGRAM PACKAGE... installs Debian packages if the program is missing and
# this user may install some; otherwise it says what is missing.
need() {
	local program=$1
	shift
	command -v "$program" >/dev/null && return
	need_packages "$@"
	command -v "$program" >/dev/null || {
		echo "$program is needed and could not be installed (Debian: apt-get install $*)" >&2
		return 1
	}
}

# need_packages PACKAGE... installs Debian packages, if this is a system that has them.
need_packages() {
	local as_root=()
	[ "$(id -u)" = 0 ] || as_root=(sudo -n)
	command -v apt-get >/dev/null || return 0
	DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"
}

# tool FOLDER NAME builds the program that FOLDER/go.mod pins as its tool. It has
# a go.mod of its own: what it needs is not what this module needs.
tool() {
	go build -C "$1" -ldflags='-s -w' -o "$cache/bin/$2" tool
}
