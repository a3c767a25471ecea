"""lib/rbtree.c: red-black trees, textbook insertion and deletion.

The shape matters: it decides which items of the unstable tree a search meets. A node with two
children is replaced by its in-order successor, as lib/rbtree does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class RbNode(Generic[T]):
    """A node that carries ``item``."""

    item: T
    left: RbNode[T] | None = None
    right: RbNode[T] | None = None
    parent: RbNode[T] | None = None
    red: bool = True


@dataclass(eq=False, slots=True)
class RbRoot(Generic[T]):
    """A tree; ``rb_node`` is its root."""

    rb_node: RbNode[T] | None = None

    def __iter__(self) -> Iterator[T]:
        """Items in order."""
        path: list[RbNode[T]] = []
        node = self.rb_node
        while path or node is not None:
            while node is not None:
                path.append(node)
                node = node.left
            node = path.pop()
            yield node.item
            node = node.right

    def insert(self, item: T, parent: RbNode[T] | None, left: bool) -> RbNode[T]:
        """rb_link_node() at that leaf of ``parent``, and rb_insert_color()."""
        node = RbNode(item, parent=parent)
        if parent is None:
            self.rb_node = node
        elif left:
            parent.left = node
        else:
            parent.right = node
        self._insert_color(node)
        return node

    def erase(self, node: RbNode[T]) -> None:
        """rb_erase()."""
        removed_red = node.red
        child: RbNode[T] | None
        parent: RbNode[T] | None
        if node.left is None or node.right is None:
            child = node.right if node.left is None else node.left
            parent = node.parent
            self._transplant(node, child)
        else:
            heir = node.right
            while heir.left is not None:
                heir = heir.left
            removed_red = heir.red
            child = heir.right
            if heir.parent is node:
                parent = heir
            else:
                parent = heir.parent
                self._transplant(heir, child)
                heir.right = node.right
                heir.right.parent = heir
            self._transplant(node, heir)
            heir.left = node.left
            heir.left.parent = heir
            heir.red = node.red
        if not removed_red:
            self._erase_color(child, parent)

    def replace(self, victim: RbNode[T], item: T) -> RbNode[T]:
        """rb_replace_node(): ``item`` takes the victim's place and colour."""
        node = RbNode(item, victim.left, victim.right, victim.parent, victim.red)
        self._transplant(victim, node)
        for child in (node.left, node.right):
            if child is not None:
                child.parent = node
        return node

    def _transplant(self, old: RbNode[T], new: RbNode[T] | None) -> None:
        """Let the parent of ``old`` have ``new`` in its place."""
        parent = old.parent
        if parent is None:
            self.rb_node = new
        elif parent.left is old:
            parent.left = new
        else:
            parent.right = new
        if new is not None:
            new.parent = parent

    def _rotate(self, node: RbNode[T], to_left: bool) -> None:
        """Let the child on the other side rise over ``node``."""
        riser = node.right if to_left else node.left
        assert riser is not None
        inner = riser.left if to_left else riser.right
        self._transplant(node, riser)
        if to_left:
            node.right, riser.left = inner, node
        else:
            node.left, riser.right = inner, node
        node.parent = riser
        if inner is not None:
            inner.parent = node

    def _insert_color(self, node: RbNode[T]) -> None:
        while (parent := node.parent) is not None and parent.red:
            grand = parent.parent
            assert grand is not None  # a red node is not the root
            on_left = parent is grand.left
            uncle = grand.right if on_left else grand.left
            if uncle is not None and uncle.red:
                parent.red = uncle.red = False
                grand.red = True
                node = grand
                continue
            if node is (parent.right if on_left else parent.left):
                self._rotate(parent, to_left=on_left)
                parent = node
            parent.red = False
            grand.red = True
            self._rotate(grand, to_left=not on_left)
            break
        assert self.rb_node is not None
        self.rb_node.red = False

    def _erase_color(self, node: RbNode[T] | None, parent: RbNode[T] | None) -> None:
        """``node`` (a child of ``parent``, perhaps none) lacks one black on its paths."""
        while parent is not None and (node is None or not node.red):
            on_left = node is parent.left
            sibling = parent.right if on_left else parent.left
            assert sibling is not None
            if sibling.red:
                sibling.red = False
                parent.red = True
                self._rotate(parent, to_left=on_left)
                sibling = parent.right if on_left else parent.left
                assert sibling is not None
            near = sibling.left if on_left else sibling.right
            far = sibling.right if on_left else sibling.left
            if far is None or not far.red:
                if near is None or not near.red:
                    sibling.red = True
                    node, parent = parent, parent.parent
                    continue
                near.red = False
                sibling.red = True
                self._rotate(sibling, to_left=not on_left)
                sibling, far = near, sibling
            sibling.red = parent.red
            parent.red = far.red = False
            self._rotate(parent, to_left=on_left)
            return
        if node is not None:
            node.red = False
