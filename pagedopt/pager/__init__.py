"""The pager: which pages move (`policy`, pure), and how much memory there is for them (`pressure`)."""
